// A block of 32 x 8 threads covers 32 vectors of columns and walks down the rows in steps of
// 8 * gridDim.y, so a thread keeps its columns: the bias stays in registers, and so do the sums for
// the bias's gradient. Blocks of one column range leave partial sums per gridDim.y.
#include <type_traits>

#include "ops/dense/activation/activation_kernel.h"
#include "ops/dense/activation/activation_math.cuh"
#include "ops/device/column_sum.cuh"
#include "ops/device/vector.cuh"

namespace refract {
namespace {

constexpr int kLanesX = 32, kLanesY = 8, kThreads = kLanesX * kLanesY;

struct GatedSilu {
  static constexpr int kInputs = 2;
  template <bool kFast>
  static __device__ __forceinline__ float forward(float gate, float up) {
    return gate * sigmoid<kFast>(gate) * up;
  }
  template <bool kFast>
  static __device__ __forceinline__ void backward(float g, float gate, float up, float& d0,
                                                  float& d1) {
    const float s = sigmoid<kFast>(gate), zs = gate * s;
    d0 = g * up * (s + zs * (1.0f - s));
    d1 = g * zs;
  }
};

template <class T, int N>
__device__ __forceinline__ void load_bias(const void* bias, int64_t column, float (&out)[N]) {
#pragma unroll
  for (int j = 0; j < N; ++j) out[j] = 0.0f;
  if (bias != nullptr) {
    const Vec<T, N> b = load_vec<T, N>(static_cast<const T*>(bias) + column);
#pragma unroll
    for (int j = 0; j < N; ++j) out[j] = to_float(b.at[j]);
  }
}

template <class T, class Op, int N>
__global__ void __launch_bounds__(kThreads) forward_kernel(ActivationArgs a) {
  constexpr bool kFast = !std::is_same_v<T, float>;
  constexpr bool kGated = Op::kInputs == 2;
  const int64_t column = (static_cast<int64_t>(blockIdx.x) * kLanesX + threadIdx.x) * N;
  if (column >= a.width) return;
  float bias0[N], bias1[N];
  load_bias<T, N>(a.bias, column, bias0);
  load_bias<T, N>(kGated ? a.bias : nullptr, a.width + column, bias1);
  const T* x = static_cast<const T*>(a.x) + column;
  T* y = static_cast<T*>(a.out) + column;
  const int64_t step = static_cast<int64_t>(gridDim.y) * kLanesY;
#pragma unroll 4
  for (int64_t row = static_cast<int64_t>(blockIdx.y) * kLanesY + threadIdx.y; row < a.rows;
       row += step) {
    const T* at = x + row * Op::kInputs * a.width;
    const Vec<T, N> x0 = load_vec<T, N>(at);
    Vec<T, N> x1 = x0, out;
    if constexpr (kGated) x1 = load_vec<T, N>(at + a.width);
#pragma unroll
    for (int j = 0; j < N; ++j) {
      out.at[j] = from_float<T>(Op::template forward<kFast>(to_float(x0.at[j]) + bias0[j],
                                                            to_float(x1.at[j]) + bias1[j]));
    }
    store_vec(y + row * a.width, out);
  }
}

// Adds the sums of the block's 8 thread rows in order; thread row 0 writes the columns.
template <int N>
__device__ __forceinline__ void write_partial(const float (&sum)[N], float* out, bool inside,
                                              float (*shared)[kLanesX * N]) {
  __syncthreads();
#pragma unroll
  for (int j = 0; j < N; ++j) shared[threadIdx.y][j * kLanesX + threadIdx.x] = sum[j];
  __syncthreads();
  if (threadIdx.y != 0 || !inside) return;
#pragma unroll
  for (int j = 0; j < N; ++j) {
    float total = shared[0][j * kLanesX + threadIdx.x];
    for (int y = 1; y < kLanesY; ++y) total += shared[y][j * kLanesX + threadIdx.x];
    out[j] = total;
  }
}

template <class T, class Op, int N>
__global__ void __launch_bounds__(kThreads) backward_kernel(ActivationArgs a) {
  constexpr bool kFast = !std::is_same_v<T, float>;
  constexpr bool kGated = Op::kInputs == 2;
  __shared__ float shared[kLanesY][kLanesX * N];
  const int64_t column = (static_cast<int64_t>(blockIdx.x) * kLanesX + threadIdx.x) * N;
  const bool inside = column < a.width;
  float bias0[N], bias1[N], sum0[N], sum1[N];
#pragma unroll
  for (int j = 0; j < N; ++j) sum0[j] = sum1[j] = 0.0f;
  load_bias<T, N>(inside ? a.bias : nullptr, column, bias0);
  load_bias<T, N>(inside && kGated ? a.bias : nullptr, a.width + column, bias1);
  const T* x = static_cast<const T*>(a.x) + column;
  const T* grad = static_cast<const T*>(a.grad) + column;
  T* gx = static_cast<T*>(a.out) + column;
  const int64_t step = static_cast<int64_t>(gridDim.y) * kLanesY;
  const int64_t end = inside ? a.rows : 0;
#pragma unroll 2
  for (int64_t row = static_cast<int64_t>(blockIdx.y) * kLanesY + threadIdx.y; row < end;
       row += step) {
    const int64_t at = row * Op::kInputs * a.width;
    const Vec<T, N> g = load_vec<T, N>(grad + row * a.width);
    const Vec<T, N> x0 = load_vec<T, N>(x + at);
    Vec<T, N> x1 = x0, out0, out1;
    if constexpr (kGated) x1 = load_vec<T, N>(x + at + a.width);
#pragma unroll
    for (int j = 0; j < N; ++j) {
      float d0 = 0.0f, d1 = 0.0f;
      Op::template backward<kFast>(to_float(g.at[j]), to_float(x0.at[j]) + bias0[j],
                                   to_float(x1.at[j]) + bias1[j], d0, d1);
      out0.at[j] = from_float<T>(d0);
      sum0[j] += d0;
      if constexpr (kGated) {
        out1.at[j] = from_float<T>(d1);
        sum1[j] += d1;
      }
    }
    store_vec(gx + at, out0);
    if constexpr (kGated) store_vec(gx + at + a.width, out1);
  }
  if (a.partial == nullptr) return;
  float* out = a.partial + static_cast<int64_t>(blockIdx.y) * Op::kInputs * a.width + column;
  write_partial<N>(sum0, out, inside, shared);
  if constexpr (kGated) write_partial<N>(sum1, out + a.width, inside, shared);
}

template <class F>
void dispatch_kind(Activation kind, F&& f) {
  switch (kind) {
    case Activation::kGeluTanh:
      return f(GeluTanh{});
    case Activation::kGeluErf:
      return f(GeluErf{});
    case Activation::kSwiglu:
      return f(GatedSilu{});
  }
}

// Whether whole vectors can be used; otherwise the same kernels go element by element.
template <class T>
bool vectorised(const ActivationArgs& a) {
  return a.width % kVec<T> == 0 && aligned16(a.grad, a.x, a.bias, a.out);
}

template <int N>
unsigned column_blocks(const ActivationArgs& a) {
  return static_cast<unsigned>((a.width + kLanesX * N - 1) / (kLanesX * N));
}

template <int V>
using Count = std::integral_constant<int, V>;

template <class F>
void dispatch(const ActivationArgs& a, Activation kind, Dtype dtype, F&& f) {
  dispatch_cuda(dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    dispatch_kind(kind, [&](auto op) {
      if (vectorised<T>(a)) {
        f(tag, op, Count<kVec<T>>{});
      } else {
        f(tag, op, Count<1>{});
      }
    });
  });
}

}  // namespace

int activation_parts(const ActivationArgs& a, Dtype dtype, int multiprocessors, int blocks_per_sm) {
  const int64_t columns = dispatch_cuda(dtype, [&](auto tag) -> int64_t {
    using T = typename decltype(tag)::type;
    return vectorised<T>(a) ? column_blocks<kVec<T>>(a) : column_blocks<1>(a);
  });
  const int64_t row_blocks = (a.rows + kLanesY - 1) / kLanesY;
  int64_t parts = static_cast<int64_t>(multiprocessors) * blocks_per_sm / columns;
  if (parts > row_blocks) parts = row_blocks;
  return static_cast<int>(parts < 1 ? 1 : parts > 65535 ? 65535 : parts);
}

cudaError_t launch_activation_forward(const ActivationArgs& a, Activation kind, Dtype dtype,
                                      cudaStream_t stream) {
  dispatch(a, kind, dtype, [&](auto tag, auto op, auto count) {
    constexpr int N = decltype(count)::value;
    const dim3 grid(column_blocks<N>(a), a.parts);
    forward_kernel<typename decltype(tag)::type, decltype(op), N>
        <<<grid, dim3(kLanesX, kLanesY), 0, stream>>>(a);
  });
  return cudaGetLastError();
}

cudaError_t launch_activation_backward(const ActivationArgs& a, Activation kind, Dtype dtype,
                                       cudaStream_t stream) {
  dispatch(a, kind, dtype, [&](auto tag, auto op, auto count) {
    constexpr int N = decltype(count)::value;
    const dim3 grid(column_blocks<N>(a), a.parts);
    backward_kernel<typename decltype(tag)::type, decltype(op), N>
        <<<grid, dim3(kLanesX, kLanesY), 0, stream>>>(a);
  });
  if (const cudaError_t error = cudaGetLastError(); error != cudaSuccess) return error;
  if (a.partial == nullptr) return cudaSuccess;
  const int64_t columns = a.width * (kind == Activation::kSwiglu ? 2 : 1);
  return dispatch_cuda(dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    return launch_column_sum<T>(a.partial, static_cast<T*>(a.grad_bias), nullptr, 1, a.parts,
                                columns, stream);
  });
}

}  // namespace refract
