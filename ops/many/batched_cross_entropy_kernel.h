// Launcher of batched_cross_entropy_sm90a.cu, over raw device pointers.
#pragma once
#include <cuda_runtime_api.h>

#include <cstdint>

#include "ops/common/dtype.h"

namespace refract {

struct BatchedHead {
  Dtype dtype;  // bfloat16, or float16 where not split
  // x and weight as split_bfloat16() and split_weight_bfloat16() make them, 3 * width columns.
  bool split;
  const void* x;       // [models, rows, width or 3 * width]
  const void* weight;  // [models, weight_rows, width or 3 * width], models weight_stride apart
  int64_t models, rows, width, weight_rows, weight_stride;
  int64_t classes;      // <= weight_rows
  const void* targets;  // [rows] int64 or int32
  bool wide_targets;    // int64
  float* loss;          // [models, rows]
  int32_t* correct;     // [models, rows]
};

// Whether the kernel can be had for these on the current device.
bool can_fuse_batched_head(const BatchedHead& args);

cudaError_t launch_batched_head(const BatchedHead& args, cudaStream_t stream);

}  // namespace refract
