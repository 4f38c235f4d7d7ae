// CPU kernels of the norm ops. Rows are independent; the gradients of weight and bias are summed
// per fixed block of rows, then over blocks, so they do not depend on the number of threads.
#include <ATen/Parallel.h>
#include <ATen/ops/empty.h>

#include <cmath>

#include "ops/common/define.h"
#include "ops/common/dispatch.h"
#include "ops/common/simd.h"
#include "ops/dense/norm/norm.h"

namespace refract {
namespace {

using simd::narrow;
using simd::widen;

template <class T>
struct ForwardArgs {
  const T *x, *residual, *weight, *bias;  // residual and bias may be null
  T *y, *sum;
  Accumulate<T>*mean, *rstd;
  int64_t columns;
  Accumulate<T> eps;
  bool rms;
};

template <class T>
REFRACT_INLINE void add_row(const T* __restrict x, const T* __restrict residual, T* __restrict sum,
                            int64_t n) {
  for (int64_t i = 0; i < n; ++i) sum[i] = narrow<T>(widen(x[i]) + widen(residual[i]));
}

template <class T>
REFRACT_INLINE Accumulate<T> row_sum(const T* __restrict s, int64_t n) {
  Accumulate<T> total = 0;
#pragma omp simd reduction(+ : total)
  for (int64_t i = 0; i < n; ++i) total += widen(s[i]);
  return total;
}

template <class T>
REFRACT_INLINE Accumulate<T> row_squares(const T* __restrict s, Accumulate<T> mean, int64_t n) {
  Accumulate<T> total = 0;
#pragma omp simd reduction(+ : total)
  for (int64_t i = 0; i < n; ++i) {
    const Accumulate<T> d = widen(s[i]) - mean;
    total += d * d;
  }
  return total;
}

template <class T>
REFRACT_INLINE void layer_row(const T* __restrict s, const T* __restrict weight,
                              const T* __restrict bias, T* __restrict y, Accumulate<T> mean,
                              Accumulate<T> rstd, int64_t n) {
  if (bias != nullptr) {
    for (int64_t i = 0; i < n; ++i) {
      y[i] = narrow<T>((widen(s[i]) - mean) * rstd * widen(weight[i]) + widen(bias[i]));
    }
  } else {
    for (int64_t i = 0; i < n; ++i) {
      y[i] = narrow<T>((widen(s[i]) - mean) * rstd * widen(weight[i]));
    }
  }
}

template <class T>
REFRACT_INLINE void rms_row(const T* __restrict s, const T* __restrict weight, T* __restrict y,
                            Accumulate<T> rstd, int64_t n) {
  for (int64_t i = 0; i < n; ++i) {
    y[i] = narrow<T>(widen(narrow<T>(widen(s[i]) * rstd)) * widen(weight[i]));
  }
}

template <class T>
REFRACT_INLINE void forward_rows(const ForwardArgs<T>& a, int64_t begin, int64_t end) {
  using A = Accumulate<T>;
  const int64_t n = a.columns;
  for (int64_t row = begin; row < end; ++row) {
    const T* s = a.x + row * n;
    if (a.residual != nullptr) {
      add_row(s, a.residual + row * n, a.sum + row * n, n);
      s = a.sum + row * n;
    }
    const A mean = a.rms ? A(0) : row_sum(s, n) / static_cast<A>(n);
    const A rstd = A(1) / std::sqrt(row_squares(s, mean, n) / static_cast<A>(n) + a.eps);
    if (a.rms) {
      rms_row(s, a.weight, a.y + row * n, rstd, n);
    } else {
      layer_row(s, a.weight, a.bias, a.y + row * n, mean, rstd, n);
      a.mean[row] = mean;
    }
    a.rstd[row] = rstd;
  }
}

template <class T>
struct BackwardArgs {
  const T *grad_y, *grad_sum, *sum, *weight;  // grad_sum may be null
  const Accumulate<T>*mean, *rstd;            // mean is null for rms
  T* grad_x;
  int64_t columns;
};

// d[0..n) and d[n..2n): the sums of grad_y * normalised and of grad_y over the rows.
template <class T>
REFRACT_INLINE void backward_row(const T* __restrict gy, const T* __restrict gs,
                                 const T* __restrict s, const T* __restrict weight,
                                 T* __restrict gx, Accumulate<T>* __restrict dw,
                                 Accumulate<T>* __restrict db, Accumulate<T> mean,
                                 Accumulate<T> rstd, bool layer, int64_t n) {
  using A = Accumulate<T>;
  A projection = 0, total = 0;
#pragma omp simd reduction(+ : projection, total)
  for (int64_t i = 0; i < n; ++i) {
    const A g = widen(gy[i]) * widen(weight[i]);
    projection += g * ((widen(s[i]) - mean) * rstd);
    total += g;
  }
  projection /= static_cast<A>(n);
  total = layer ? total / static_cast<A>(n) : A(0);
  if (gs != nullptr) {
    for (int64_t i = 0; i < n; ++i) {
      const A y = widen(gy[i]), normed = (widen(s[i]) - mean) * rstd;
      gx[i] = narrow<T>((y * widen(weight[i]) - total - normed * projection) * rstd + widen(gs[i]));
      dw[i] += y * normed;
      db[i] += y;
    }
  } else {
    for (int64_t i = 0; i < n; ++i) {
      const A y = widen(gy[i]), normed = (widen(s[i]) - mean) * rstd;
      gx[i] = narrow<T>((y * widen(weight[i]) - total - normed * projection) * rstd);
      dw[i] += y * normed;
      db[i] += y;
    }
  }
}

template <class T>
REFRACT_INLINE void backward_rows(const BackwardArgs<T>& a, Accumulate<T>* partial, int64_t begin,
                                  int64_t end) {
  const int64_t n = a.columns;
  const bool layer = a.mean != nullptr;
  for (int64_t i = 0; i < 2 * n; ++i) partial[i] = 0;
  for (int64_t row = begin; row < end; ++row) {
    backward_row(a.grad_y + row * n, a.grad_sum != nullptr ? a.grad_sum + row * n : nullptr,
                 a.sum + row * n, a.weight, a.grad_x + row * n, partial, partial + n,
                 layer ? a.mean[row] : Accumulate<T>(0), a.rstd[row], layer, n);
  }
}

#define REFRACT_ROWS(T)                                                                       \
  REFRACT_SIMD void forward(const ForwardArgs<T>& a, int64_t begin, int64_t end) {            \
    forward_rows(a, begin, end);                                                              \
  }                                                                                           \
  REFRACT_SIMD void backward(const BackwardArgs<T>& a, Accumulate<T>* partial, int64_t begin, \
                             int64_t end) {                                                   \
    backward_rows(a, partial, begin, end);                                                    \
  }
REFRACT_ROWS(double)
REFRACT_ROWS(float)
REFRACT_ROWS(at::BFloat16)
REFRACT_ROWS(at::Half)
#undef REFRACT_ROWS

template <class T>
const T* data(const std::optional<at::Tensor>& t) {
  return t.has_value() ? t->const_data_ptr<T>() : nullptr;
}

std::optional<at::Tensor> contiguous(const std::optional<at::Tensor>& t) {
  return t.has_value() ? std::optional(t->contiguous()) : std::nullopt;
}

// Elements that are worth a thread's start.
constexpr int64_t kGrain = 16384;

NormForwardResult forward_cpu(const NormForwardInputs& in) {
  norm_op::check_forward(in);
  const at::Tensor x = in.x.contiguous(), weight = in.weight.contiguous();
  const auto residual = contiguous(in.residual), bias = contiguous(in.bias);
  const int64_t columns = x.size(-1), rows = columns == 0 ? 0 : x.numel() / columns;
  const auto wide = x.options().dtype(x.scalar_type() == at::kDouble ? at::kDouble : at::kFloat);
  at::Tensor y = at::empty(x.sizes(), x.options());
  at::Tensor sum = residual ? at::empty(x.sizes(), x.options()) : at::empty({0}, x.options());
  at::Tensor mean = at::empty({in.rms ? 0 : rows}, wide), rstd = at::empty({rows}, wide);
  dispatch_floating(x.scalar_type(), "norm", [&](auto tag) {
    using T = typename decltype(tag)::type;
    using A = Accumulate<T>;
    const ForwardArgs<T> args{x.const_data_ptr<T>(),
                              data<T>(residual),
                              weight.const_data_ptr<T>(),
                              data<T>(bias),
                              y.mutable_data_ptr<T>(),
                              sum.mutable_data_ptr<T>(),
                              mean.mutable_data_ptr<A>(),
                              rstd.mutable_data_ptr<A>(),
                              columns,
                              static_cast<A>(in.eps),
                              in.rms};
    at::parallel_for(0, rows, std::max<int64_t>(1, kGrain / std::max<int64_t>(columns, 1)),
                     [&](int64_t begin, int64_t end) { forward(args, begin, end); });
  });
  return {y, sum, mean, rstd};
}

// How many blocks of rows have sums of their own: by the size alone.
int64_t row_blocks(int64_t rows, int64_t columns) {
  const int64_t worth = rows * columns / kGrain;
  return std::clamp<int64_t>(worth, 1, std::min<int64_t>(64, std::max<int64_t>(rows, 1)));
}

NormBackwardResult backward_cpu(const NormBackwardInputs& in) {
  norm_op::check_backward(in);
  const at::Tensor grad_y = in.grad_y.contiguous(), sum = in.sum.contiguous(),
                   weight = in.weight.contiguous();
  const auto grad_sum = contiguous(in.grad_sum);
  const int64_t columns = sum.size(-1), rows = columns == 0 ? 0 : sum.numel() / columns;
  const int64_t blocks = row_blocks(rows, columns);
  at::Tensor grad_x = at::empty(sum.sizes(), sum.options());
  at::Tensor grad_weight = at::empty(weight.sizes(), weight.options());
  at::Tensor grad_bias = at::empty({in.has_bias ? columns : 0}, weight.options());
  at::Tensor partial = at::empty({blocks, 2, columns}, in.rstd.options());
  dispatch_floating(sum.scalar_type(), "norm_backward", [&](auto tag) {
    using T = typename decltype(tag)::type;
    using A = Accumulate<T>;
    const BackwardArgs<T> args{grad_y.const_data_ptr<T>(),
                               data<T>(grad_sum),
                               sum.const_data_ptr<T>(),
                               weight.const_data_ptr<T>(),
                               in.rms ? nullptr : in.mean.const_data_ptr<A>(),
                               in.rstd.const_data_ptr<A>(),
                               grad_x.mutable_data_ptr<T>(),
                               columns};
    A* sums = partial.mutable_data_ptr<A>();
    at::parallel_for(0, blocks, 1, [&](int64_t begin, int64_t end) {
      for (int64_t b = begin; b < end; ++b) {
        backward(args, sums + b * 2 * columns, rows * b / blocks, rows * (b + 1) / blocks);
      }
    });
    T* dw = grad_weight.mutable_data_ptr<T>();
    T* db = grad_bias.mutable_data_ptr<T>();
    for (int64_t b = 1; b < blocks; ++b) {
      for (int64_t i = 0; i < 2 * columns; ++i) sums[i] += sums[b * 2 * columns + i];
    }
    for (int64_t i = 0; i < columns; ++i) dw[i] = narrow<T>(sums[i]);
    for (int64_t i = 0; in.has_bias && i < columns; ++i) db[i] = narrow<T>(sums[columns + i]);
  });
  return {grad_x, grad_weight, grad_bias};
}

}  // namespace

TORCH_LIBRARY_FRAGMENT(refract, m) {
  forms(m, norm_forward).cpu<forward_cpu>();
  forms(m, norm_backward).cpu<backward_cpu>();
}

}  // namespace refract
