// Launcher of split_norm_kernel.cu, over raw device pointers; null stands for an absent operand.
#pragma once
#include <cuda_runtime_api.h>

#include <cstdint>

namespace refract {

// The widest row: it stays in the registers of a warp.
inline constexpr int64_t kWidestSplitNorm = 1024;

struct SplitNorm {
  const float *x, *residual;   // [rows, columns]
  const float *weight, *bias;  // [rows / rows_each, columns]
  void* y;                     // bfloat16 [rows, 3 columns]
  float* sum;                  // [rows, columns], only with a residual
  int64_t rows, columns;       // columns a multiple of 4, at most kWidestSplitNorm
  int64_t rows_each;
  float eps;
  bool rms;
};

cudaError_t launch_split_norm(const SplitNorm& args, cudaStream_t stream);

}  // namespace refract
