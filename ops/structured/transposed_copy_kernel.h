// Launcher of the transposing copy over raw device pointers.
#pragma once
#include <cuda_runtime_api.h>

#include <cstdint>

#include "ops/common/dtype.h"

namespace refract {

// out [columns, rows] = in [rows, columns] transposed; elements of 2, 4 or 8 bytes, `in` with
// `stride` elements between its rows.
cudaError_t launch_transposed_copy(const void* in, void* out, int64_t rows, int64_t columns,
                                   int64_t stride, int element_size, cudaStream_t stream);

// The same with bias[row] added, in fp32.
cudaError_t launch_transposed_add(const void* in, const void* bias, void* out, int64_t rows,
                                  int64_t columns, int64_t stride, Dtype dtype,
                                  cudaStream_t stream);

}  // namespace refract
