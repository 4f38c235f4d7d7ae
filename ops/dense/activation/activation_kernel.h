// Launchers of the activation kernels over raw device pointers, everything contiguous.
#pragma once
#include <cuda_runtime_api.h>

#include <cstdint>

#include "ops/common/dtype.h"

namespace refract {

enum class Activation { kGeluTanh, kGeluErf, kSwiglu };

struct ActivationArgs {
  const void *grad, *x, *bias;  // grad [rows, width] for the backward pass; bias may be null
  void* out;                    // forward [rows, width]; backward like x
  void* grad_bias;              // backward with a bias: [inputs * width]
  float* partial;               // the same: scratch [parts, inputs * width]
  int parts;                    // of activation_parts
  int64_t rows, width;          // x is [rows, inputs * width], inputs = 2 for swiglu
};

// How many row ranges are worked on at once: as many blocks as fill the device `blocks_per_sm`
// times.
int activation_parts(const ActivationArgs& a, Dtype dtype, int multiprocessors, int blocks_per_sm);

cudaError_t launch_activation_forward(const ActivationArgs& a, Activation kind, Dtype dtype,
                                      cudaStream_t stream);
cudaError_t launch_activation_backward(const ActivationArgs& a, Activation kind, Dtype dtype,
                                       cudaStream_t stream);

}  // namespace refract
