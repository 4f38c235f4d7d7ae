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

}  // namespace refract
