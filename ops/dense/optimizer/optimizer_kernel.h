// Launchers of optimizer_kernel.cu, over raw device pointers.
#pragma once
#include <cuda_runtime_api.h>

#include <cstdint>

#include "ops/common/dtype.h"

namespace refract {

struct AdamWArrays {
  float* master;
  void* compute;  // null: none
  Dtype compute_dtype;
  void* grads;
  Dtype grad_dtype;
  float *exp_avg, *exp_avg_sq;
  int64_t n, n_decay;
  const float *hyper, *control;
};

struct AdamWScalars {
  float beta1_rest, beta2, beta2_rest, eps, weight_decay;
  bool zero_grads;
};

cudaError_t launch_adamw(const AdamWArrays& arrays, const AdamWScalars& scalars,
                         cudaStream_t stream);

// Partial sums that launch_global_norm needs: double [norm_partials(n)].
int norm_partials(int64_t n);
cudaError_t launch_global_norm(Dtype dtype, const void* flat, int64_t n, double* partial,
                               float* norm, cudaStream_t stream);

cudaError_t launch_step_control(float* control, const float* norm, const float* loss,
                                float max_norm, const int64_t* step, cudaStream_t stream);

cudaError_t launch_accumulate(float* sum, Dtype dtype, void* part, int64_t n, cudaStream_t stream);

}  // namespace refract
