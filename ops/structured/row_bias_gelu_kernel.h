// Launchers of row_bias_gelu over raw device pointers, everything contiguous.
#pragma once
#include <cuda_runtime_api.h>

#include <cstdint>

#include "ops/common/dtype.h"

namespace refract {

struct RowGeluArgs {
  const void *grad, *x, *bias;  // [rows, columns]; grad for the backward pass; bias [rows] or null
  void *out, *grad_bias;        // grad_bias [rows] or null
  int64_t rows, columns;
  bool tanh_form;
};

cudaError_t launch_row_gelu_forward(const RowGeluArgs& a, Dtype dtype, cudaStream_t stream);
cudaError_t launch_row_gelu_backward(const RowGeluArgs& a, Dtype dtype, cudaStream_t stream);

}  // namespace refract
