#include <ATen/cuda/CUDAContextLight.h>

#include "ops/common/cublaslt.h"
#include "ops/common/launch.h"

namespace refract::cublaslt {

Product::Product(const Matrices& matrices) : matrices_(matrices) {
  keep(cublasLtMatmulDescCreate(&operation_, CUBLAS_COMPUTE_32F, CUDA_R_32F));
  set(CUBLASLT_MATMUL_DESC_TRANSA, CUBLAS_OP_T);
  layout(&weight_, matrices.type, matrices.in, matrices.out);
  layout(&x_, matrices.type, matrices.in, matrices.rows);
  layout(&y_, matrices.out_type, matrices.out, matrices.rows);
}

Product::~Product() {
  if (y_ != nullptr) cublasLtMatrixLayoutDestroy(y_);
  if (x_ != nullptr) cublasLtMatrixLayoutDestroy(x_);
  if (weight_ != nullptr) cublasLtMatrixLayoutDestroy(weight_);
  if (operation_ != nullptr) cublasLtMatmulDescDestroy(operation_);
}

// One matrix of the batch, [rows, columns] to cuBLASLt.
void Product::layout(cublasLtMatrixLayout_t* to, cudaDataType_t type, int64_t rows,
                     int64_t columns) {
  keep(cublasLtMatrixLayoutCreate(to, type, static_cast<uint64_t>(rows),
                                  static_cast<uint64_t>(columns), rows));
  if (status_ != CUBLAS_STATUS_SUCCESS || matrices_.batches == 1) return;
  const auto count = static_cast<int32_t>(matrices_.batches);
  const int64_t apart = rows * columns;
  keep(cublasLtMatrixLayoutSetAttribute(*to, CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT, &count,
                                        sizeof(count)));
  keep(cublasLtMatrixLayoutSetAttribute(*to, CUBLASLT_MATRIX_LAYOUT_STRIDED_BATCH_OFFSET, &apart,
                                        sizeof(apart)));
}

std::vector<cublasLtMatmulAlgo_t> Product::propose(int most) {
  if (status_ != CUBLAS_STATUS_SUCCESS) return {};
  const size_t workspace = at::cuda::getCUDABlasLtWorkspaceSize();
  cublasLtMatmulPreference_t preference = nullptr;
  keep(cublasLtMatmulPreferenceCreate(&preference));
  if (preference == nullptr) return {};
  cublasLtMatmulPreferenceSetAttribute(preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES,
                                       &workspace, sizeof(workspace));
  std::vector<cublasLtMatmulHeuristicResult_t> results(static_cast<size_t>(most));
  int count = 0;
  const cublasStatus_t status =
      cublasLtMatmulAlgoGetHeuristic(at::cuda::getCurrentCUDABlasLtHandle(), operation_, weight_,
                                     x_, y_, y_, preference, most, results.data(), &count);
  cublasLtMatmulPreferenceDestroy(preference);
  std::vector<cublasLtMatmulAlgo_t> algorithms;
  if (status != CUBLAS_STATUS_SUCCESS) {
    if (status != CUBLAS_STATUS_NOT_SUPPORTED) keep(status);
    return algorithms;
  }
  for (int i = 0; i < count; ++i) algorithms.push_back(results[static_cast<size_t>(i)].algo);
  return algorithms;
}

cublasStatus_t Product::launch(const cublasLtMatmulAlgo_t& algorithm) const {
  if (status_ != CUBLAS_STATUS_SUCCESS) return status_;
  const float one = 1, zero = 0;
  return cublasLtMatmul(at::cuda::getCurrentCUDABlasLtHandle(), operation_, &one, matrices_.weight,
                        weight_, matrices_.x, x_, &zero, matrices_.y, y_, matrices_.y, y_,
                        &algorithm, at::cuda::getCUDABlasLtWorkspace(),
                        at::cuda::getCUDABlasLtWorkspaceSize(), current_stream());
}

}  // namespace refract::cublaslt
