// CPU kernel of dropout: words are drawn for a chunk of elements, then applied.
#include <ATen/Parallel.h>
#include <ATen/ops/empty.h>

#include "ops/common/define.h"
#include "ops/common/dispatch.h"
#include "ops/common/philox_cpu.h"
#include "ops/common/simd.h"
#include "ops/dense/activation/dropout.h"

namespace refract {
namespace {

using simd::narrow;
using simd::widen;

struct Draw {
  PhiloxKey key;
  uint64_t step, first;
  float p;
  double scale;
};

constexpr int64_t kChunk = 1024;  // elements

template <class T>
REFRACT_INLINE void apply_chunk(const T* __restrict x, T* __restrict y,
                                const uint32_t* __restrict words, const Draw& d, int64_t n) {
  const auto scale = static_cast<Accumulate<T>>(d.scale);
  const float p = d.p;
  for (int64_t i = 0; i < n; ++i) {
    // The 24-bit integer has an exact float, signed or not; signed converts faster.
    const float uniform = static_cast<float>(static_cast<int32_t>(words[i] >> 8)) * 0x1p-24f;
    const T kept = narrow<T>(widen(x[i]) * scale);
    y[i] = uniform >= p ? kept : T(0);
  }
}

// NOLINTBEGIN(bugprone-macro-parentheses): T is a type
#define REFRACT_CHUNK(T)                                                                       \
  REFRACT_SIMD void apply(const T* x, T* y, const uint32_t* words, const Draw& d, int64_t n) { \
    apply_chunk(x, y, words, d, n);                                                            \
  }
// NOLINTEND(bugprone-macro-parentheses)
REFRACT_CHUNK(double)
REFRACT_CHUNK(float)
REFRACT_CHUNK(at::BFloat16)
REFRACT_CHUNK(at::Half)
#undef REFRACT_CHUNK

template <class T>
void dropout_range(const T* x, T* y, const Draw& d, int64_t begin, int64_t end) {
  uint32_t words[kChunk + 8];
  for (int64_t i = begin; i < end; i += kChunk) {
    const int64_t n = std::min(kChunk, end - i);
    const uint64_t index = d.first + static_cast<uint64_t>(i);
    const int64_t skip = static_cast<int64_t>(index & 3);
    simd::draw_philox(d.key, d.step, index >> 2, words, (skip + n + 3) / 4);
    apply(x + i, y + i, words + skip, d, n);
  }
}

at::Tensor dropout_cpu(const DropoutInputs& in) {
  dropout_op::check(in);
  const at::Tensor x = in.x.contiguous(), clock = in.clock.contiguous();
  at::Tensor y = at::empty(x.sizes(), x.options());
  const int64_t* now = clock.const_data_ptr<int64_t>();
  const Draw d{philox_key(static_cast<uint64_t>(in.seed), static_cast<uint64_t>(in.stream)),
               static_cast<uint64_t>(now[0]), static_cast<uint64_t>(now[1]),
               static_cast<float>(in.p), 1.0 / (1.0 - in.p)};
  dispatch_floating(x.scalar_type(), "dropout", [&](auto tag) {
    using T = typename decltype(tag)::type;
    at::parallel_for(0, x.numel(), 16 * kChunk, [&](int64_t begin, int64_t end) {
      dropout_range(x.const_data_ptr<T>(), y.mutable_data_ptr<T>(), d, begin, end);
    });
  });
  return y;
}

}  // namespace

TORCH_LIBRARY_FRAGMENT(refract, m) { forms(m, dropout).cpu<dropout_cpu>(); }

}  // namespace refract
