// The second stage of every sum over rows: blocks of the first stage leave partial sums [parts, F]
// in scratch memory, and this adds them in a fixed order, so results do not depend on timing.
#pragma once
#include <cuda_runtime.h>

#include <cstdint>

#include "ops/device/vector.cuh"

namespace refract {

constexpr int kColumnSumRows = 16;

// partial: fp32 [groups, parts, columns] -> out[g]: T [columns], for up to two groups (a null out
// skips its group). Grid (ceil(columns / 32), groups), block (32, kColumnSumRows).
template <class T>
__global__ void column_sum_kernel(const float* partial, T* out0, T* out1, int parts,
                                  int64_t columns) {
  __shared__ float sums[kColumnSumRows][33];
  T* out = blockIdx.y == 0 ? out0 : out1;
  if (out == nullptr) return;
  const int64_t column = static_cast<int64_t>(blockIdx.x) * 32 + threadIdx.x;
  const float* base = partial + static_cast<int64_t>(blockIdx.y) * parts * columns;
  float sum = 0.0f;
  if (column < columns) {
#pragma unroll 4
    for (int part = threadIdx.y; part < parts; part += kColumnSumRows) {
      sum += base[part * columns + column];
    }
  }
  sums[threadIdx.y][threadIdx.x] = sum;
  __syncthreads();
  if (threadIdx.y == 0 && column < columns) {
    for (int row = 1; row < kColumnSumRows; ++row) sum += sums[row][threadIdx.x];
    out[column] = from_float<T>(sum);
  }
}

template <class T>
cudaError_t launch_column_sum(const float* partial, T* out0, T* out1, int groups, int parts,
                              int64_t columns, cudaStream_t stream) {
  const dim3 grid(static_cast<unsigned>((columns + 31) / 32), groups);
  column_sum_kernel<T>
      <<<grid, dim3(32, kColumnSumRows), 0, stream>>>(partial, out0, out1, parts, columns);
  return cudaGetLastError();
}

}  // namespace refract
