// A block of 256 threads walks along one row in vectors of 16 bytes; the row's bias sits in a
// register, and its gradient is summed in the block, in a fixed order.
#include <type_traits>

#include "ops/dense/activation/activation_math.cuh"
#include "ops/device/vector.cuh"
#include "ops/structured/row_bias_gelu_kernel.h"

namespace refract {
namespace {

constexpr int kThreads = 256, kWarps = kThreads / 32;

template <class T>
__device__ __forceinline__ float bias_of(const RowGeluArgs& a, int64_t row) {
  return a.bias == nullptr ? 0.0f : to_float(static_cast<const T*>(a.bias)[row]);
}

template <class T, class Op, int N>
__global__ void __launch_bounds__(kThreads) forward_kernel(RowGeluArgs a) {
  constexpr bool kFast = !std::is_same_v<T, float>;
  const int64_t row = blockIdx.x;
  const float bias = bias_of<T>(a, row);
  const T* x = static_cast<const T*>(a.x) + row * a.columns;
  T* y = static_cast<T*>(a.out) + row * a.columns;
#pragma unroll 4
  for (int64_t i = threadIdx.x * N; i < a.columns; i += kThreads * N) {
    const Vec<T, N> in = load_vec<T, N>(x + i);
    Vec<T, N> out;
#pragma unroll
    for (int j = 0; j < N; ++j) {
      out.at[j] = from_float<T>(Op::template forward<kFast>(to_float(in.at[j]) + bias, 0.0f));
    }
    store_vec(y + i, out);
  }
}

template <class T, class Op, int N>
__global__ void __launch_bounds__(kThreads) backward_kernel(RowGeluArgs a) {
  constexpr bool kFast = !std::is_same_v<T, float>;
  __shared__ float sums[kWarps];
  const int64_t row = blockIdx.x;
  const float bias = bias_of<T>(a, row);
  const T* x = static_cast<const T*>(a.x) + row * a.columns;
  const T* grad = static_cast<const T*>(a.grad) + row * a.columns;
  T* gx = static_cast<T*>(a.out) + row * a.columns;
  float sum = 0.0f;
#pragma unroll 2
  for (int64_t i = threadIdx.x * N; i < a.columns; i += kThreads * N) {
    const Vec<T, N> g = load_vec<T, N>(grad + i), in = load_vec<T, N>(x + i);
    Vec<T, N> out;
#pragma unroll
    for (int j = 0; j < N; ++j) {
      float d = 0.0f, unused = 0.0f;
      Op::template backward<kFast>(to_float(g.at[j]), to_float(in.at[j]) + bias, 0.0f, d, unused);
      out.at[j] = from_float<T>(d);
      sum += d;
    }
    store_vec(gx + i, out);
  }
  if (a.grad_bias == nullptr) return;
  for (int offset = 16; offset > 0; offset /= 2) sum += __shfl_down_sync(~0u, sum, offset);
  if (threadIdx.x % 32 == 0) sums[threadIdx.x / 32] = sum;
  __syncthreads();
  if (threadIdx.x != 0) return;
  for (int w = 1; w < kWarps; ++w) sum += sums[w];
  static_cast<T*>(a.grad_bias)[row] = from_float<T>(sum);
}

// f(tag, op, vector length).
template <class F>
cudaError_t dispatch(const RowGeluArgs& a, Dtype dtype, F&& f) {
  dispatch_cuda(dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    const bool whole = a.columns % kVec<T> == 0 && aligned16(a.grad, a.x, a.out);
    const auto with = [&](auto op) {
      if (whole) {
        f(tag, op, std::integral_constant<int, kVec<T>>{});
      } else {
        f(tag, op, std::integral_constant<int, 1>{});
      }
    };
    if (a.tanh_form) {
      with(GeluTanh{});
    } else {
      with(GeluErf{});
    }
  });
  return cudaGetLastError();
}

}  // namespace

cudaError_t launch_row_gelu_forward(const RowGeluArgs& a, Dtype dtype, cudaStream_t stream) {
  return dispatch(a, dtype, [&](auto tag, auto op, auto count) {
    forward_kernel<typename decltype(tag)::type, decltype(op), decltype(count)::value>
        <<<static_cast<unsigned>(a.rows), kThreads, 0, stream>>>(a);
  });
}

cudaError_t launch_row_gelu_backward(const RowGeluArgs& a, Dtype dtype, cudaStream_t stream) {
  return dispatch(a, dtype, [&](auto tag, auto op, auto count) {
    backward_kernel<typename decltype(tag)::type, decltype(op), decltype(count)::value>
        <<<static_cast<unsigned>(a.rows), kThreads, 0, stream>>>(a);
  });
}

}  // namespace refract
