// CPU kernels of bias_gelu and swiglu. The bias's gradient is summed per fixed block of rows, then
// over blocks, so it does not depend on the number of threads.
#include <ATen/Parallel.h>
#include <ATen/ops/empty.h>

#include <numbers>

#include "ops/common/define.h"
#include "ops/common/dispatch.h"
#include "ops/common/math.h"
#include "ops/common/simd.h"
#include "ops/dense/activation/activation.h"

namespace refract {
namespace {

using simd::narrow;
using simd::widen;

template <class A>
REFRACT_INLINE A sigmoid(A z) {
  return A(1) / (A(1) + simd::exp(-z));
}

// The activations: `forward` and `backward` of one output element from kInputs biased inputs.
struct GeluTanh {
  static constexpr int kInputs = 1;
  // gelu = h (1 + tanh(z)) / 2 = h sigmoid(2 z), which keeps its relative precision.
  template <class A>
  static REFRACT_INLINE A twice_z(A h) {
    const A k = static_cast<A>(2 * std::numbers::sqrt2 * std::numbers::inv_sqrtpi);
    return k * (h + A(0.044715) * h * h * h);
  }
  template <class A>
  static REFRACT_INLINE A forward(A h, A) {
    return h * sigmoid(twice_z(h));
  }
  template <class A>
  static REFRACT_INLINE void backward(A g, A h, A, A& d0, A&) {
    const A k = static_cast<A>(2 * std::numbers::sqrt2 * std::numbers::inv_sqrtpi);
    const A s = sigmoid(twice_z(h));
    d0 = g * (s + h * s * (A(1) - s) * k * (A(1) + A(3 * 0.044715) * h * h));
  }
};

struct GeluErf {
  static constexpr int kInputs = 1;
  template <class A>
  static REFRACT_INLINE A normal_cdf(A h) {
    return A(0.5) * (A(1) + simd::erf(h * static_cast<A>(1 / std::numbers::sqrt2)));
  }
  template <class A>
  static REFRACT_INLINE A forward(A h, A) {
    return h * normal_cdf(h);
  }
  template <class A>
  static REFRACT_INLINE void backward(A g, A h, A, A& d0, A&) {
    const A k = static_cast<A>(std::numbers::inv_sqrtpi / std::numbers::sqrt2);
    d0 = g * (normal_cdf(h) + h * k * simd::exp(A(-0.5) * h * h));
  }
};

struct GatedSilu {
  static constexpr int kInputs = 2;
  template <class A>
  static REFRACT_INLINE A forward(A gate, A up) {
    return gate * sigmoid(gate) * up;
  }
  template <class A>
  static REFRACT_INLINE void backward(A g, A gate, A up, A& d0, A& d1) {
    const A s = sigmoid(gate), zs = gate * s;
    d0 = g * up * (s + zs * (A(1) - s));
    d1 = g * zs;
  }
};

template <class T>
struct Args {
  const T *grad, *x, *bias;  // x [rows, kInputs * width]; bias may be null
  T* out;                    // forward: [rows, width]; backward: like x
  int64_t width;
};

template <class T, class Op>
REFRACT_INLINE void forward_row(const T* __restrict x, const T* __restrict bias, T* __restrict y,
                                int64_t n) {
  using A = Accumulate<T>;
  constexpr bool gated = Op::kInputs == 2;
  if (bias != nullptr) {
    for (int64_t i = 0; i < n; ++i) {
      const A h1 = gated ? widen(x[i + n]) + widen(bias[i + n]) : A(0);
      y[i] = narrow<T>(Op::forward(widen(x[i]) + widen(bias[i]), h1));
    }
  } else {
    for (int64_t i = 0; i < n; ++i) {
      y[i] = narrow<T>(Op::forward(widen(x[i]), gated ? widen(x[i + n]) : A(0)));
    }
  }
}

// sums: [kInputs * n], where there is a bias.
template <class T, class Op>
REFRACT_INLINE void backward_row(const T* __restrict grad, const T* __restrict x,
                                 const T* __restrict bias, T* __restrict gx,
                                 Accumulate<T>* __restrict sums, int64_t n) {
  using A = Accumulate<T>;
  constexpr bool gated = Op::kInputs == 2;
  if (bias != nullptr) {
    for (int64_t i = 0; i < n; ++i) {
      const A h1 = gated ? widen(x[i + n]) + widen(bias[i + n]) : A(0);
      A d0 = 0, d1 = 0;
      Op::backward(widen(grad[i]), widen(x[i]) + widen(bias[i]), h1, d0, d1);
      gx[i] = narrow<T>(d0);
      sums[i] += d0;
      if constexpr (gated) {
        gx[i + n] = narrow<T>(d1);
        sums[i + n] += d1;
      }
    }
  } else {
    for (int64_t i = 0; i < n; ++i) {
      A d0 = 0, d1 = 0;
      Op::backward(widen(grad[i]), widen(x[i]), gated ? widen(x[i + n]) : A(0), d0, d1);
      gx[i] = narrow<T>(d0);
      if constexpr (gated) gx[i + n] = narrow<T>(d1);
    }
  }
}

template <class T, class Op>
REFRACT_INLINE void forward_rows(const Args<T>& a, int64_t begin, int64_t end) {
  for (int64_t row = begin; row < end; ++row) {
    forward_row<T, Op>(a.x + row * Op::kInputs * a.width, a.bias, a.out + row * a.width, a.width);
  }
}

template <class T, class Op>
REFRACT_INLINE void backward_rows(const Args<T>& a, Accumulate<T>* sums, int64_t begin,
                                  int64_t end) {
  const int64_t wide = Op::kInputs * a.width;
  for (int64_t i = 0; a.bias != nullptr && i < wide; ++i) sums[i] = 0;
  for (int64_t row = begin; row < end; ++row) {
    backward_row<T, Op>(a.grad + row * a.width, a.x + row * wide, a.bias, a.out + row * wide, sums,
                        a.width);
  }
}

#define REFRACT_ROWS(T, Op)                                                            \
  REFRACT_SIMD void forward(const Args<T>& a, Op, int64_t begin, int64_t end) {        \
    forward_rows<T, Op>(a, begin, end);                                                \
  }                                                                                    \
  REFRACT_SIMD void backward(const Args<T>& a, Op, Accumulate<T>* sums, int64_t begin, \
                             int64_t end) {                                            \
    backward_rows<T, Op>(a, sums, begin, end);                                         \
  }
#define REFRACT_ALL_OPS(T)  \
  REFRACT_ROWS(T, GeluTanh) \
  REFRACT_ROWS(T, GeluErf)  \
  REFRACT_ROWS(T, GatedSilu)
REFRACT_ALL_OPS(double)
REFRACT_ALL_OPS(float)
REFRACT_ALL_OPS(at::BFloat16)
REFRACT_ALL_OPS(at::Half)
#undef REFRACT_ALL_OPS
#undef REFRACT_ROWS

// Elements that are worth a thread's start.
constexpr int64_t kGrain = 8192;

template <class Op>
at::Tensor run_forward(const char* name, const at::Tensor& x_in, const MaybeTensor& bias_in) {
  activation_op::check(name, x_in, bias_in, Op::kInputs == 2);
  const at::Tensor x = x_in.contiguous();
  const at::Tensor bias = bias_in ? bias_in->contiguous() : at::Tensor();
  auto sizes = x.sizes().vec();
  sizes.back() /= Op::kInputs;
  at::Tensor y = at::empty(sizes, x.options());
  const int64_t width = sizes.back(), rows = width == 0 ? 0 : y.numel() / width;
  dispatch_floating(x.scalar_type(), name, [&](auto tag) {
    using T = typename decltype(tag)::type;
    const Args<T> args{nullptr, x.const_data_ptr<T>(),
                       bias.defined() ? bias.const_data_ptr<T>() : nullptr, y.mutable_data_ptr<T>(),
                       width};
    at::parallel_for(0, rows, std::max<int64_t>(1, kGrain / std::max<int64_t>(width, 1)),
                     [&](int64_t begin, int64_t end) { forward(args, Op(), begin, end); });
  });
  return y;
}

template <class Op>
ActivationGradients run_backward(const char* name, const at::Tensor& grad_in,
                                 const at::Tensor& x_in, const MaybeTensor& bias_in) {
  activation_op::check_backward(name, grad_in, x_in, bias_in, Op::kInputs == 2);
  const at::Tensor x = x_in.contiguous(), grad = grad_in.contiguous();
  const at::Tensor bias = bias_in ? bias_in->contiguous() : at::Tensor();
  const int64_t wide = x.size(-1), width = wide / Op::kInputs;
  const int64_t rows = width == 0 ? 0 : grad.numel() / width;
  // By the size alone, so sums do not depend on the number of threads.
  const int64_t blocks =
      std::clamp<int64_t>(rows * width / kGrain, 1, std::clamp<int64_t>(rows, 1, 64));
  at::Tensor grad_x = at::empty(x.sizes(), x.options());
  at::Tensor grad_bias = at::empty({bias.defined() ? wide : 0}, x.options());
  at::Tensor partial =
      at::empty({bias.defined() ? blocks : 0, wide},
                x.options().dtype(x.scalar_type() == at::kDouble ? at::kDouble : at::kFloat));
  dispatch_floating(x.scalar_type(), name, [&](auto tag) {
    using T = typename decltype(tag)::type;
    using A = Accumulate<T>;
    const Args<T> args{grad.const_data_ptr<T>(), x.const_data_ptr<T>(),
                       bias.defined() ? bias.const_data_ptr<T>() : nullptr,
                       grad_x.mutable_data_ptr<T>(), width};
    A* sums = bias.defined() ? partial.mutable_data_ptr<A>() : nullptr;
    at::parallel_for(0, blocks, 1, [&](int64_t begin, int64_t end) {
      for (int64_t b = begin; b < end; ++b) {
        backward(args, Op(), sums != nullptr ? sums + b * wide : nullptr, rows * b / blocks,
                 rows * (b + 1) / blocks);
      }
    });
    if (sums == nullptr) return;
    for (int64_t b = 1; b < blocks; ++b) {
      for (int64_t i = 0; i < wide; ++i) sums[i] += sums[b * wide + i];
    }
    T* db = grad_bias.mutable_data_ptr<T>();
    for (int64_t i = 0; i < wide; ++i) db[i] = narrow<T>(sums[i]);
  });
  return {grad_x, grad_bias};
}

at::Tensor bias_gelu_cpu(const BiasGeluInputs& in) {
  return in.tanh_form ? run_forward<GeluTanh>("bias_gelu", in.x, in.bias)
                      : run_forward<GeluErf>("bias_gelu", in.x, in.bias);
}

at::Tensor swiglu_cpu(const SwigluInputs& in) {
  return run_forward<GatedSilu>("swiglu", in.x, in.bias);
}

ActivationGradients bias_gelu_backward_cpu(const BiasGeluBackwardInputs& in) {
  return in.tanh_form ? run_backward<GeluTanh>("bias_gelu_backward", in.grad, in.x, in.bias)
                      : run_backward<GeluErf>("bias_gelu_backward", in.grad, in.x, in.bias);
}

ActivationGradients swiglu_backward_cpu(const SwigluBackwardInputs& in) {
  return run_backward<GatedSilu>("swiglu_backward", in.grad, in.x, in.bias);
}

}  // namespace

TORCH_LIBRARY_FRAGMENT(refract, m) {
  forms(m, bias_gelu).cpu<bias_gelu_cpu>();
  forms(m, swiglu).cpu<swiglu_cpu>();
  forms(m, bias_gelu_backward).cpu<bias_gelu_backward_cpu>();
  forms(m, swiglu_backward).cpu<swiglu_backward_cpu>();
}

}  // namespace refract
