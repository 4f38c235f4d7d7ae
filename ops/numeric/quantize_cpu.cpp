// CPU kernel of number_quantize: rows over threads, a group's limits, then its elements.
#include <ATen/Parallel.h>
#include <ATen/ops/empty_like.h>

#include <array>

#include "ops/common/define.h"
#include "ops/common/dispatch.h"
#include "ops/common/philox_cpu.h"
#include "ops/common/simd.h"
#include "ops/numeric/element.h"
#include "ops/numeric/with_format.h"

namespace refract {
namespace {

using numeric::Element;
using numeric::Group;
using numeric::Limits;
using numeric::Rounding;
using numeric::Scaling;
using simd::narrow;
using simd::widen;

constexpr int64_t kChunk = 1024;  // elements that random words are drawn for at once

template <class T>
REFRACT_INLINE Limits limits_loop(const T* __restrict x, int64_t n) {
  float lo = 0, hi = 0;
#pragma omp simd reduction(min : lo) reduction(max : hi)
  for (int64_t i = 0; i < n; ++i) {
    const float v = widen(x[i]);
    lo = v < lo ? v : lo;
    hi = v > hi ? v : hi;
  }
  return {lo, hi};
}

template <class T, Rounding rounding, Scaling scaling>
REFRACT_INLINE void group_loop(const T* __restrict x, T* __restrict y,
                               const uint32_t* __restrict words, const Element& f, const Group& g,
                               int64_t n) {
  for (int64_t i = 0; i < n; ++i) {
    float u = 0;
    if (rounding == Rounding::kStochastic) {
      u = static_cast<float>(static_cast<int32_t>(words[i] >> 8)) * 0x1p-24f;
    }
    y[i] = narrow<T>(numeric::in_group<rounding, scaling>(widen(x[i]), f, g, u));
  }
}

// NOLINTBEGIN(bugprone-macro-parentheses): T is a type
#define REFRACT_GROUP(T, rounding, scaling)                                                    \
  REFRACT_SIMD void rounded_##rounding##scaling(const T* x, T* y, const uint32_t* words,       \
                                                const Element& f, const Group& g, int64_t n) { \
    group_loop<T, Rounding::rounding, Scaling::scaling>(x, y, words, f, g, n);                 \
  }
#define REFRACT_ROUNDING(T, rounding)  \
  REFRACT_GROUP(T, rounding, kNone)    \
  REFRACT_GROUP(T, rounding, kPower)   \
  REFRACT_GROUP(T, rounding, kLargest) \
  REFRACT_GROUP(T, rounding, kLimits)
#define REFRACT_TYPE(T)                                                              \
  REFRACT_SIMD Limits limits_of(const T* x, int64_t n) { return limits_loop(x, n); } \
  REFRACT_ROUNDING(T, kEven)                                                         \
  REFRACT_ROUNDING(T, kAway)                                                         \
  REFRACT_ROUNDING(T, kZero)                                                         \
  REFRACT_ROUNDING(T, kStochastic)
// NOLINTEND(bugprone-macro-parentheses)
REFRACT_TYPE(float)
REFRACT_TYPE(at::BFloat16)
REFRACT_TYPE(at::Half)
#undef REFRACT_TYPE
#undef REFRACT_ROUNDING
#undef REFRACT_GROUP

template <class T>
using GroupLoop = void (*)(const T*, T*, const uint32_t*, const Element&, const Group&, int64_t);

template <class T>
GroupLoop<T> loop_of(const Element& f) {
#define REFRACT_CASES(rounding)                                                          \
  {                                                                                      \
    rounded_##rounding##kNone, rounded_##rounding##kPower, rounded_##rounding##kLargest, \
        rounded_##rounding##kLargest, rounded_##rounding##kLimits                        \
  }
  static constexpr GroupLoop<T> kLoops[4][5] = {REFRACT_CASES(kEven), REFRACT_CASES(kAway),
                                                REFRACT_CASES(kZero), REFRACT_CASES(kStochastic)};
#undef REFRACT_CASES
  return kLoops[static_cast<int>(f.rounding)][static_cast<int>(f.scaling)];
}

struct Plan {
  Element format;
  int64_t width, block;
  bool of_tensor;  // one scale for all
  Limits tensor;
  PhiloxKey key;
  uint64_t step, first;
};

// Elements [begin, begin + n) of a call are one group.
template <class T>
void quantize_group(const T* x, T* y, const Plan& p, GroupLoop<T> loop, int64_t begin, int64_t n) {
  Limits own = p.tensor;
  if (!p.of_tensor && p.format.scaling != Scaling::kNone) own = limits_of(x + begin, n);
  const Group g = numeric::group_of(p.format, own, p.tensor);
  if (p.format.rounding != Rounding::kStochastic)
    return loop(x + begin, y + begin, nullptr, p.format, g, n);
  std::array<uint32_t, kChunk + 8> words;
  for (int64_t i = 0; i < n; i += kChunk) {
    const int64_t count = std::min(kChunk, n - i);
    const uint64_t index = p.first + static_cast<uint64_t>(begin + i);
    const auto skip = static_cast<int64_t>(index & 3);
    simd::draw_philox(p.key, p.step, index >> 2, words.data(), (skip + count + 3) / 4);
    loop(x + begin + i, y + begin + i, words.data() + skip, p.format, g, count);
  }
}

at::Tensor rows_quantized(const at::Tensor& x, const NumberQuantizeInputs& in) {
  at::Tensor y = at::empty_like(x);
  Plan p{numeric::element_of(in.format),
         x.size(-1),
         x.size(-1),
         in.format.block == -1,
         {0, 0},
         philox_key(static_cast<uint64_t>(in.seed), static_cast<uint64_t>(in.stream)),
         0,
         0};
  if (in.format.block > 0) p.block = std::min(in.format.block, p.width);
  const at::Tensor limits = number_quantize_op::tensor_limits(in);
  if (limits.defined())
    p.tensor = {limits.const_data_ptr<float>()[0], limits.const_data_ptr<float>()[1]};
  if (p.format.rounding == Rounding::kStochastic) {
    const at::Tensor now = in.clock->contiguous();
    p.step = static_cast<uint64_t>(now.const_data_ptr<int64_t>()[0]);
    p.first = static_cast<uint64_t>(now.const_data_ptr<int64_t>()[1]);
  }
  dispatch_floating(x.scalar_type(), "number_quantize", [&](auto tag) {
    using T = typename decltype(tag)::type;
    if constexpr (!std::is_same_v<T, double>) {
      const GroupLoop<T> loop = loop_of<T>(p.format);
      const T* from = x.const_data_ptr<T>();
      T* to = y.mutable_data_ptr<T>();
      const int64_t grain = std::max<int64_t>(1, 16384 / p.width);
      at::parallel_for(0, x.numel() / p.width, grain, [&](int64_t begin, int64_t end) {
        for (int64_t row = begin; row < end; ++row) {
          for (int64_t i = 0; i < p.width; i += p.block) {
            quantize_group(from, to, p, loop, row * p.width + i, std::min(p.block, p.width - i));
          }
        }
      });
    }
  });
  return y;
}

at::Tensor number_quantize_cpu(const NumberQuantizeInputs& in) {
  if (in.x.scalar_type() == at::kDouble || in.x.numel() == 0) return composite::number_quantize(in);
  number_quantize_op::check(in);
  if (!in.columns) return rows_quantized(in.x.contiguous(), in);
  return rows_quantized(in.x.transpose(-1, -2).contiguous(), in).transpose(-1, -2).contiguous();
}

}  // namespace

TORCH_LIBRARY_FRAGMENT(refract, m) { forms(m, number_quantize).cpu<number_quantize_cpu>(); }

}  // namespace refract
