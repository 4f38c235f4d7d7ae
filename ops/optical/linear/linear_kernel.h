// Launcher of linear_sm90a.cu: the product of codes and all that follows it, in one kernel.
#pragma once
#include "ops/optical/matmul/product_kernel.h"

namespace refract {

struct OpticalLinearArgs {
  const void* x_codes;       // fp16 [rows, inner]
  const void* w_codes;       // fp16 [columns, inner]
  OpticalOutputArgs output;  // `product` is not used
};

// Whether the kernel can be had for these on the current device: bfloat16 and float16, at most 256
// levels, ranges not learned from clipped values, members of whole 32 columns, from 512 rows on,
// one batch, `inner` a multiple of 8, pointers at 16 bytes. The caller sees to it that ranges are
// set.
bool can_fuse_optical_linear(const OpticalLinearArgs& a, Dtype dtype);
// Floats that `seen` needs for this shape.
int64_t optical_linear_parts(const OpticalLinearArgs& a, int multiprocessors);
// seen: scratch. The launch may begin while the encoding of x drains.
cudaError_t launch_optical_linear(const OpticalLinearArgs& a, float* seen, Dtype dtype,
                                  int multiprocessors, cudaStream_t stream);

}  // namespace refract
