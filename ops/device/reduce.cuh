// Sums and maxima over a warp or a block, in a fixed order.
#pragma once

namespace refract {

constexpr unsigned kFullWarp = 0xffffffffu;

__device__ __forceinline__ float warp_sum(float x) {
#pragma unroll
  for (int offset = 16; offset > 0; offset >>= 1) x += __shfl_xor_sync(kFullWarp, x, offset);
  return x;
}

__device__ __forceinline__ float warp_max(float x) {
#pragma unroll
  for (int offset = 16; offset > 0; offset >>= 1) {
    x = fmaxf(x, __shfl_xor_sync(kFullWarp, x, offset));
  }
  return x;
}

// The sum over all threads of a block of kThreads (a multiple of 32, at most 1024), given to every
// thread. `scratch` is shared memory for 32 floats; it may be used again at once by the next call.
template <int kThreads>
__device__ __forceinline__ float block_sum(float x, float* scratch) {
  x = warp_sum(x);
  if constexpr (kThreads > 32) {
    __syncthreads();
    if (threadIdx.x % 32 == 0) scratch[threadIdx.x / 32] = x;
    __syncthreads();
    x = threadIdx.x % 32 < kThreads / 32 ? scratch[threadIdx.x % 32] : 0.0f;
    x = warp_sum(x);
  }
  return x;
}

template <int kThreads>
__device__ __forceinline__ float block_max(float x, float* scratch) {
  x = warp_max(x);
  if constexpr (kThreads > 32) {
    __syncthreads();
    if (threadIdx.x % 32 == 0) scratch[threadIdx.x / 32] = x;
    __syncthreads();
    x = threadIdx.x % 32 < kThreads / 32 ? scratch[threadIdx.x % 32] : -INFINITY;
    x = warp_max(x);
  }
  return x;
}

}  // namespace refract
