// Launchers of cross_entropy_kernel.cu, over raw device pointers.
#pragma once
#include <cuda_runtime_api.h>

#include <cstdint>

#include "ops/common/dtype.h"

namespace refract {

struct CrossEntropyRows {
  Dtype dtype;
  void* logits;    // [rows, stride] of dtype, 16-byte aligned; becomes the gradient where wanted
  int64_t stride;  // a multiple of 8; columns classes..stride of the gradient become zero
  int64_t rows, classes;
  const void* targets;  // [rows] int64 or int32
  bool wide_targets;    // int64
  bool gradient;
  float* loss;       // [rows]
  int32_t* correct;  // [rows]
};

cudaError_t launch_cross_entropy_rows(const CrossEntropyRows& args, cudaStream_t stream);

// loss_sum = sum of loss [n] (float64 inside), num_correct = sum of correct [n].
cudaError_t launch_cross_entropy_sum(const float* loss, const int32_t* correct, int64_t n,
                                     float* loss_sum, int64_t* num_correct, cudaStream_t stream);

// out[i] = in[i] * *scale.
cudaError_t launch_scale_cast(Dtype from, const void* in, Dtype to, void* out, int64_t n,
                              const float* scale, cudaStream_t stream);

}  // namespace refract
