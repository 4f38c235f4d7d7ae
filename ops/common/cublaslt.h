// A product of row-major matrices with an epilogue by cuBLASLt. Only for files of
// librefract_cuda.so.
#pragma once
#include <cublasLt.h>

#include <cstdint>
#include <vector>

namespace refract::cublaslt {

// y = epilogue(x weight^T) for each of `batches`: weight [batches, out, in], x [batches, rows, in],
// y [batches, rows, out], all contiguous and starting at 16 bytes. To cuBLASLt a row-major [N, O]
// is a column-major [O, N]; so a bias runs along y's first dimension.
struct Matrices {
  int64_t batches, rows, in, out;
  cudaDataType_t type, out_type;  // of weight and x, of y
  const void *weight, *x;
  void* y;
};

// Descriptors of a product. Failures are kept, not raised: the first is status().
class Product {
 public:
  explicit Product(const Matrices& matrices);
  ~Product();
  Product(const Product&) = delete;
  Product& operator=(const Product&) = delete;

  template <class T>
  void set(cublasLtMatmulDescAttributes_t attribute, const T& value) {
    keep(cublasLtMatmulDescSetAttribute(operation_, attribute, &value, sizeof(value)));
  }
  cublasStatus_t status() const { return status_; }

  // The library's proposals, its favourite first; none where it has no such product.
  std::vector<cublasLtMatmulAlgo_t> propose(int most);
  // On the current stream, with torch's handle and workspace.
  cublasStatus_t launch(const cublasLtMatmulAlgo_t& algorithm) const;

 private:
  void keep(cublasStatus_t status) {
    if (status_ == CUBLAS_STATUS_SUCCESS) status_ = status;
  }
  void layout(cublasLtMatrixLayout_t* to, cudaDataType_t type, int64_t rows, int64_t columns);

  Matrices matrices_;
  cublasStatus_t status_ = CUBLAS_STATUS_SUCCESS;
  cublasLtMatmulDesc_t operation_ = nullptr;
  cublasLtMatrixLayout_t weight_ = nullptr, x_ = nullptr, y_ = nullptr;
};

}  // namespace refract::cublaslt
