// Launcher of split_kernel.cu, over raw device pointers.
#pragma once
#include <cuda_runtime_api.h>

#include <cstdint>

namespace refract {

enum class BeforeSplit { kNothing, kGeluTanh, kGeluErf };

// x [rows, width] float, 16-byte aligned -> out [rows, 3 width] bfloat16; width a multiple of 4.
cudaError_t launch_split_bfloat16(BeforeSplit before, const float* x, void* out, int64_t rows,
                                  int64_t width, cudaStream_t stream);

}  // namespace refract
