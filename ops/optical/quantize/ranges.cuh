// What the optical kernels share on the device: ranges over a block, and reading them.
#pragma once
#include "ops/device/reduce.cuh"
#include "ops/device/vector.cuh"
#include "ops/optical/quantize/quantization_math.h"

namespace refract::optical {

constexpr int kThreads = 256;
constexpr int kWarps = kThreads / 32;

__device__ __forceinline__ Range load_range(const float* p) { return {p[0], p[1]}; }
__device__ __forceinline__ void store_range(float* p, Range r) {
  p[0] = r.lo;
  p[1] = r.hi;
}

// The range over a warp, given to its lanes.
__device__ __forceinline__ Range warp_range(Range r) {
#pragma unroll
  for (int offset = 16; offset > 0; offset >>= 1) {
    r = merge(r,
              {__shfl_xor_sync(kFullWarp, r.lo, offset), __shfl_xor_sync(kFullWarp, r.hi, offset)});
  }
  return r;
}

// The range over all threads of a block of kThreads, given to every thread; ends and begins with a
// barrier.
__device__ __forceinline__ Range block_range(Range r) {
  __shared__ float lo[kWarps], hi[kWarps];
  r = warp_range(r);
  __syncthreads();
  if (threadIdx.x % 32 == 0) {
    lo[threadIdx.x / 32] = r.lo;
    hi[threadIdx.x / 32] = r.hi;
  }
  __syncthreads();
#pragma unroll
  for (int w = 0; w < kWarps; ++w) r = merge(r, {lo[w], hi[w]});
  return r;
}

// The merge of parts [count, 2] that other blocks wrote, past the first-level cache.
__device__ __forceinline__ Range merge_parts(const float* parts, int64_t count) {
  Range r = unset_range();
  for (int64_t i = threadIdx.x; i < count; i += kThreads) {
    r = merge(r, {__ldcg(parts + 2 * i), __ldcg(parts + 2 * i + 1)});
  }
  return block_range(r);
}

// The range a call quantizes with: `range` where it is set, else the merge of parts, where there
// are any. Every thread of the block calls it.
__device__ __forceinline__ Range effective_range(Range range, const float* parts, int64_t count) {
  return parts == nullptr || is_set(range) ? range : merge_parts(parts, count);
}

// The merge of parts [count, 2] by one warp, given to its lanes.
__device__ __forceinline__ Range warp_merge_parts(const float* parts, int64_t count) {
  Range r = unset_range();
#pragma unroll 16
  for (int64_t i = threadIdx.x % 32; i < count; i += 32) {
    const float2 part = __ldcg(reinterpret_cast<const float2*>(parts) + i);
    r = merge(r, {part.x, part.y});
  }
  return warp_range(r);
}

// One more block of a launch has written what it has to tell; true for the last of `blocks`, which
// then sees what all wrote before. Called by one thread.
__device__ __forceinline__ bool is_last(unsigned* ticket, unsigned blocks) {
  unsigned before;
  asm volatile("atom.add.acq_rel.gpu.global.u32 %0, [%1], 1;"
               : "=r"(before)
               : "l"(ticket)
               : "memory");
  return before == blocks - 1;
}

// A launch whose blocks may be placed while the kernel before it drains (programmatic dependent
// launch, from compute capability 9.0 on); the kernel must begin with wait_for_earlier().
__device__ __forceinline__ void wait_for_earlier() {
#if __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}
// Lets such a launch after this kernel come as soon as all blocks of this one have begun.
__device__ __forceinline__ void let_later_come() {
#if __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
#endif
}

struct LaunchShape {
  dim3 grid, block;
  size_t shared;
  LaunchShape(dim3 grid_in, int threads = kThreads, size_t shared_in = 0)
      : grid(grid_in), block(static_cast<unsigned>(threads)), shared(shared_in) {}
};

template <class... P, class... A>
cudaError_t launch_overlapped(void (*kernel)(P...), const LaunchShape& shape, cudaStream_t stream,
                              const A&... args) {
  int device = 0, major = 0;
  cudaError_t error = cudaGetDevice(&device);
  if (error == cudaSuccess) {
    error = cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device);
  }
  if (error != cudaSuccess) return error;
  cudaLaunchAttribute overlap{};
  overlap.id = cudaLaunchAttributeProgrammaticStreamSerialization;
  overlap.val.programmaticStreamSerializationAllowed = 1;
  cudaLaunchConfig_t config{};
  config.gridDim = shape.grid;
  config.blockDim = shape.block;
  config.dynamicSmemBytes = shape.shared;
  config.stream = stream;
  config.attrs = &overlap;
  config.numAttrs = major >= 9 ? 1 : 0;
  return cudaLaunchKernelEx(&config, kernel, args...);
}

// (step, index of the first slice) of a clock that may be absent.
struct Now {
  uint64_t step, slice;
};
__device__ __forceinline__ Now now_of(const int64_t* clock) {
  if (clock == nullptr) return {~0ull, 0};
  return {static_cast<uint64_t>(clock[0]), static_cast<uint64_t>(clock[1])};
}

}  // namespace refract::optical
