// A block goes through rows blockIdx.x, + gridDim.x, ...; a thread has N neighbouring elements of
// the first half of a head and the N of the second half that they turn with.
#include <algorithm>

#include "ops/dense/attention/rope_kernel.h"
#include "ops/device/vector.cuh"

namespace refract {
namespace {

constexpr int kMaxThreads = 256;

// N floats of a table; N is 1, 4 or 8, and 4 or 8 only where 16-byte loads are right.
template <int N>
__device__ __forceinline__ void load_table(const float* p, float (&out)[N]) {
  if constexpr (N == 1) {
    out[0] = *p;
  } else {
#pragma unroll
    for (int i = 0; i < N; i += 4) {
      const Vec<float, 4> v = load_vec<float, 4>(p + i);
#pragma unroll
      for (int j = 0; j < 4; ++j) out[i + j] = v.at[j];
    }
  }
}

template <class T, int N>
__global__ void __launch_bounds__(kMaxThreads) rope_kernel(RopeArgs a) {
  const int half = a.head_dim / 2;
  const int per_head = half / N;
  const int units = a.heads * per_head;
  const int64_t width = static_cast<int64_t>(a.heads) * a.head_dim;
  for (uint32_t row = blockIdx.x; row < a.rows; row += gridDim.x) {
    const int64_t table = static_cast<int64_t>(row % a.length) * half;
    for (int unit = threadIdx.x; unit < units; unit += blockDim.x) {
      const int head = unit / per_head;
      const int i = (unit - head * per_head) * N;
      const int64_t at = row * width + static_cast<int64_t>(head) * a.head_dim + i;
      Vec<T, N> first = load_vec<T, N>(static_cast<const T*>(a.x) + at);
      Vec<T, N> second = load_vec<T, N>(static_cast<const T*>(a.x) + at + half);
      if (head < a.rotated) {
        float c[N], s[N];
        load_table<N>(a.cos + table + i, c);
        load_table<N>(a.sin + table + i, s);
#pragma unroll
        for (int j = 0; j < N; ++j) {
          const float p = to_float(first.at[j]), q = to_float(second.at[j]), sine = s[j] * a.sign;
          first.at[j] = from_float<T>(p * c[j] - q * sine);
          second.at[j] = from_float<T>(q * c[j] + p * sine);
        }
      }
      store_vec(static_cast<T*>(a.y) + at, first);
      store_vec(static_cast<T*>(a.y) + at + half, second);
    }
  }
}

template <class T, int N>
void launch(const RopeArgs& a, int multiprocessors, cudaStream_t stream) {
  const int units = a.heads * (a.head_dim / 2 / N);
  const int threads = units < kMaxThreads ? (units + 31) / 32 * 32 : kMaxThreads;
  const uint32_t most = static_cast<uint32_t>(multiprocessors) * (4096 / threads);
  const uint32_t blocks = std::min(a.rows, most);
  rope_kernel<T, N><<<blocks, threads, 0, stream>>>(a);
}

}  // namespace

cudaError_t launch_rope(const RopeArgs& a, Dtype dtype, int multiprocessors, cudaStream_t stream) {
  dispatch_cuda(dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    if (a.head_dim / 2 % kVec<T> == 0 && aligned16(a.x, a.y, a.cos, a.sin)) {
      launch<T, kVec<T>>(a, multiprocessors, stream);
    } else {
      launch<T, 1>(a, multiprocessors, stream);
    }
  });
  return cudaGetLastError();
}

}  // namespace refract
