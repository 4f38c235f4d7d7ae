#include "ops/device/normal.cuh"
#include "ops/numeric/normal_noise_kernel.h"

namespace refract {
namespace {

constexpr int kThreads = 256;

__global__ void __launch_bounds__(kThreads)
    normal_kernel(float* y, int64_t count, PhiloxKey key, const int64_t* clock) {
  const int64_t thread = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  const NormalPlace place(clock[1], thread);
  if (place.element >= count) return;
  const float4 drawn =
      normal_block(key, static_cast<uint64_t>(clock[0]), static_cast<uint64_t>(place.block));
  if ((clock[1] & 3) == 0 && place.element + 4 <= count) {
    *reinterpret_cast<float4*>(y + place.element) = drawn;
    return;
  }
  const float at[4] = {drawn.x, drawn.y, drawn.z, drawn.w};
#pragma unroll
  for (int j = 0; j < 4; ++j) {
    const int64_t i = place.element + j;
    if (i >= 0 && i < count) y[i] = at[j];
  }
}

}  // namespace

cudaError_t launch_normal_noise(float* y, int64_t count, PhiloxKey key, const int64_t* clock,
                                cudaStream_t stream) {
  const int64_t blocks = (normal_threads(count) + kThreads - 1) / kThreads;
  normal_kernel<<<static_cast<unsigned>(blocks), kThreads, 0, stream>>>(y, count, key, clock);
  return cudaGetLastError();
}

}  // namespace refract
