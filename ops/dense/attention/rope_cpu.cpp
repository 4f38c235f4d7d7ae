// CPU kernel of rope: rows (positions) are independent.
#include <ATen/Parallel.h>
#include <ATen/ops/empty.h>

#include "ops/common/define.h"
#include "ops/common/dispatch.h"
#include "ops/common/simd.h"
#include "ops/dense/attention/rope.h"

namespace refract {
namespace {

using simd::narrow;
using simd::widen;

template <class T>
struct Args {
  const T* x;
  T* y;
  const Accumulate<T>*cos, *sin;  // of position_offset on
  int64_t length, width, rotated, head_dim;
  Accumulate<T> sign;
};

template <class T>
REFRACT_INLINE void turn(const T* __restrict x, T* __restrict y,
                         const Accumulate<T>* __restrict cos, const Accumulate<T>* __restrict sin,
                         Accumulate<T> sign, int64_t half) {
  for (int64_t i = 0; i < half; ++i) {
    const Accumulate<T> a = widen(x[i]), b = widen(x[i + half]), s = sin[i] * sign;
    y[i] = narrow<T>(a * cos[i] - b * s);
    y[i + half] = narrow<T>(b * cos[i] + a * s);
  }
}

template <class T>
REFRACT_INLINE void rope_rows(const Args<T>& a, int64_t begin, int64_t end) {
  const int64_t half = a.head_dim / 2, turned = a.rotated * a.head_dim;
  for (int64_t row = begin; row < end; ++row) {
    const int64_t at = (row % a.length) * half;
    const T* x = a.x + row * a.width;
    T* y = a.y + row * a.width;
    for (int64_t i = 0; i < turned; i += a.head_dim) {
      turn(x + i, y + i, a.cos + at, a.sin + at, a.sign, half);
    }
    std::memcpy(y + turned, x + turned, sizeof(T) * static_cast<size_t>(a.width - turned));
  }
}

#define REFRACT_ROWS(T)                                                        \
  REFRACT_SIMD void rope_range(const Args<T>& a, int64_t begin, int64_t end) { \
    rope_rows(a, begin, end);                                                  \
  }
REFRACT_ROWS(double)
REFRACT_ROWS(float)
REFRACT_ROWS(at::BFloat16)
REFRACT_ROWS(at::Half)
#undef REFRACT_ROWS

at::Tensor rope_cpu(const RopeInputs& in) {
  rope_op::check(in);
  const at::Tensor x = in.x.contiguous(), cos = in.cos.contiguous(), sin = in.sin.contiguous();
  at::Tensor y = at::empty(x.sizes(), x.options());
  if (y.numel() == 0) return y;
  const int64_t width = x.size(-1), skip = in.position_offset * (in.head_dim / 2);
  dispatch_floating(x.scalar_type(), "rope", [&](auto tag) {
    using T = typename decltype(tag)::type;
    using A = Accumulate<T>;
    const Args<T> args{x.const_data_ptr<T>(),
                       y.mutable_data_ptr<T>(),
                       cos.const_data_ptr<A>() + skip,
                       sin.const_data_ptr<A>() + skip,
                       x.size(-2),
                       width,
                       in.num_rotated_heads,
                       in.head_dim,
                       A(in.inverse ? -1 : 1)};
    constexpr int64_t kGrain = 32768;  // elements that are worth a thread's start
    at::parallel_for(0, x.numel() / width, std::max<int64_t>(1, kGrain / width),
                     [&](int64_t begin, int64_t end) { rope_range(args, begin, end); });
  });
  return y;
}

}  // namespace

TORCH_LIBRARY_FRAGMENT(refract, m) { forms(m, rope).cpu<rope_cpu>(); }

}  // namespace refract
