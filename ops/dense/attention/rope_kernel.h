// Launcher of the rope kernel over raw device pointers, everything contiguous.
#pragma once
#include <cuda_runtime_api.h>

#include <cstdint>

#include "ops/common/dtype.h"

namespace refract {

struct RopeArgs {
  const void* x;           // [rows, heads * head_dim], row r at position r % length of its sequence
  void* y;                 // like x
  const float *cos, *sin;  // [length at least, head_dim / 2], from the first row's position on
  uint32_t rows, length;
  int heads, rotated, head_dim;
  float sign;  // -1 turns back
};
cudaError_t launch_rope(const RopeArgs& a, Dtype dtype, int multiprocessors, cudaStream_t stream);

}  // namespace refract
