// Maps of matrices in global memory for Hopper's copy engine, made on the host. For .cu files.
#pragma once
#include <cuda.h>
#include <cuda_runtime_api.h>

#include <cstdint>

#include "ops/common/dtype.h"

namespace refract {
namespace tensor_map_detail {

// The driver's function, without linking to the driver.
using Encode = decltype(&cuTensorMapEncodeTiled);
inline Encode encoder() {
  static const Encode found = [] {
    void* address = nullptr;
    cudaDriverEntryPointQueryResult result = cudaDriverEntryPointSymbolNotFound;
    const cudaError_t error = cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &address,
                                                               12000, cudaEnableDefault, &result);
    const bool ok = error == cudaSuccess && result == cudaDriverEntryPointSuccess;
    return ok ? reinterpret_cast<Encode>(address) : nullptr;
  }();
  return found;
}

}  // namespace tensor_map_detail

inline bool has_tensor_maps() { return tensor_map_detail::encoder() != nullptr; }

struct Matrices {
  const void* data;
  int64_t columns, rows, models, stride;  // between models
};

// Boxes of `rows` rows and a chunk of columns, what lies outside read as zero.
inline bool make_tensor_map(CUtensorMap* map, Dtype dtype, const Matrices& of, int rows,
                            int chunk) {
  const cuuint64_t sizes[3] = {static_cast<cuuint64_t>(of.columns),
                               static_cast<cuuint64_t>(of.rows),
                               static_cast<cuuint64_t>(of.models)};
  const cuuint64_t strides[2] = {static_cast<cuuint64_t>(of.columns) * 2,
                                 static_cast<cuuint64_t>(of.stride) * 2};
  const cuuint32_t box[3] = {static_cast<cuuint32_t>(chunk), static_cast<cuuint32_t>(rows), 1},
                   ones[3] = {1, 1, 1};
  const auto type = dtype == Dtype::kBFloat16 ? CU_TENSOR_MAP_DATA_TYPE_BFLOAT16
                                              : CU_TENSOR_MAP_DATA_TYPE_FLOAT16;
  return tensor_map_detail::encoder()(
             map, type, 3, const_cast<void*>(of.data), sizes, strides, box, ones,
             CU_TENSOR_MAP_INTERLEAVE_NONE,
             chunk == 64 ? CU_TENSOR_MAP_SWIZZLE_128B : CU_TENSOR_MAP_SWIZZLE_64B,
             CU_TENSOR_MAP_L2_PROMOTION_L2_256B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE) == CUDA_SUCCESS;
}

// fp16 [rows, columns], rows a multiple of 32, in boxes of `box_rows` rows and 64 columns whose
// rows lie so that a thread's part of a wgmma result is eight neighbours: row 32 i + 8 q + 2 g + e
// of the matrix is row 32 i + 8 g + 2 q + e of shared memory.
inline bool make_spread_rows_map(CUtensorMap* map, const void* data, int64_t columns, int64_t rows,
                                 int box_rows) {
  const auto row = static_cast<cuuint64_t>(columns) * 2;  // bytes
  const cuuint64_t sizes[5] = {static_cast<cuuint64_t>(columns), 2, 4, 4,
                               static_cast<cuuint64_t>(rows) / 32};
  const cuuint64_t strides[4] = {row, 8 * row, 2 * row, 32 * row};  // of e, q, g, i
  const cuuint32_t box[5] = {64, 2, 4, 4, static_cast<cuuint32_t>(box_rows) / 32},
                   ones[5] = {1, 1, 1, 1, 1};
  return tensor_map_detail::encoder()(
             map, CU_TENSOR_MAP_DATA_TYPE_FLOAT16, 5, const_cast<void*>(data), sizes, strides, box,
             ones, CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_128B,
             CU_TENSOR_MAP_L2_PROMOTION_L2_256B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE) == CUDA_SUCCESS;
}

}  // namespace refract
