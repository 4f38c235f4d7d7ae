// Launchers of the norm kernels over raw device pointers. All matrices are contiguous
// [rows, columns]; null stands for an absent operand.
#pragma once
#include <cuda_runtime_api.h>

#include <cstdint>

#include "ops/common/dtype.h"

namespace refract {

struct NormForward {
  const void *x, *residual, *weight, *bias;
  void *y, *sum;       // sum only with a residual
  float *mean, *rstd;  // mean null for rms
  int64_t rows, columns;
  float eps;
  bool rms;
};
cudaError_t launch_norm_forward(const NormForward &a, Dtype dtype, cudaStream_t stream);

struct NormBackward {
  const void *grad_y, *grad_sum, *sum, *weight;
  const float *mean, *rstd;  // mean null for rms
  void *grad_x, *grad_weight, *grad_bias;
  float *partial;  // fp32 [2, parts, columns], scratch
  int parts;
  int64_t rows, columns;
};
// How many blocks leave partial sums, hence the size of `partial`.
int norm_backward_parts(int64_t rows, int64_t columns, Dtype dtype, int multiprocessors);
cudaError_t launch_norm_backward(const NormBackward &a, Dtype dtype, cudaStream_t stream);

}  // namespace refract
