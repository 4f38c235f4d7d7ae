// batched_linear by cuBLASLt: torch's baddbmm first copies the bias to every row of the result,
// which the product then reads again; here the epilogue adds it.
//
// A row-major matrix [N, O] is a column-major [O, N] to cuBLASLt, so the bias runs along the first
// dimension.
#include <ATen/core/LegacyTypeDispatch.h>
#include <ATen/cuda/CUDAContextLight.h>
#include <ATen/ops/baddbmm.h>
#include <ATen/ops/bmm.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/gelu.h>
#include <cublasLt.h>
#include <torch/library.h>

#include <map>
#include <mutex>
#include <optional>
#include <tuple>

#include "ops/common/dispatch.h"
#include "ops/common/launch.h"
#include "ops/fused/batched_linear.h"

namespace refract {
namespace {

bool ok(cublasStatus_t status) { return status == CUBLAS_STATUS_SUCCESS; }

cudaDataType_t type_of(const at::Tensor& t) {
  return t.scalar_type() == at::kFloat      ? CUDA_R_32F
         : t.scalar_type() == at::kBFloat16 ? CUDA_R_16BF
                                            : CUDA_R_16F;
}

struct Product {
  at::Tensor weight, x, bias, y;  // contiguous
  bool gelu;

  int64_t models() const { return x.size(0); }
  int64_t rows() const { return x.size(1); }
  int64_t in() const { return x.size(2); }
  int64_t out() const { return y.size(2); }
};

class Descriptors {
 public:
  explicit Descriptors(const Product& p) {
    const cublasOperation_t transposed = CUBLAS_OP_T;
    const cublasLtEpilogue_t epilogue =
        p.gelu ? CUBLASLT_EPILOGUE_GELU_BIAS : CUBLASLT_EPILOGUE_BIAS;
    const void* bias = p.bias.const_data_ptr();
    const int64_t apart = p.out();
    valid = ok(cublasLtMatmulDescCreate(&operation, CUBLAS_COMPUTE_32F, CUDA_R_32F)) &&
            set(CUBLASLT_MATMUL_DESC_TRANSA, transposed) &&
            set(CUBLASLT_MATMUL_DESC_EPILOGUE, epilogue) &&
            set(CUBLASLT_MATMUL_DESC_BIAS_POINTER, bias) &&
            set(CUBLASLT_MATMUL_DESC_BIAS_BATCH_STRIDE, apart) &&
            layout(&weight, p.weight, p.in(), p.out()) && layout(&x, p.x, p.in(), p.rows()) &&
            layout(&y, p.y, p.out(), p.rows());
  }
  ~Descriptors() {
    cublasLtMatrixLayoutDestroy(y);
    cublasLtMatrixLayoutDestroy(x);
    cublasLtMatrixLayoutDestroy(weight);
    cublasLtMatmulDescDestroy(operation);
  }
  Descriptors(const Descriptors&) = delete;
  Descriptors& operator=(const Descriptors&) = delete;

  bool valid = false;
  cublasLtMatmulDesc_t operation = nullptr;
  cublasLtMatrixLayout_t weight = nullptr, x = nullptr, y = nullptr;

 private:
  template <class T>
  bool set(cublasLtMatmulDescAttributes_t attribute, const T& value) {
    return ok(cublasLtMatmulDescSetAttribute(operation, attribute, &value, sizeof(value)));
  }
  // One matrix of the batch, [columns, rows] to cuBLASLt.
  static bool layout(cublasLtMatrixLayout_t* to, const at::Tensor& t, int64_t rows,
                     int64_t columns) {
    const auto count = static_cast<int32_t>(t.size(0));
    const int64_t apart = rows * columns;
    return ok(cublasLtMatrixLayoutCreate(to, type_of(t), static_cast<uint64_t>(rows),
                                         static_cast<uint64_t>(columns), rows)) &&
           ok(cublasLtMatrixLayoutSetAttribute(*to, CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT, &count,
                                               sizeof(count))) &&
           ok(cublasLtMatrixLayoutSetAttribute(*to, CUBLASLT_MATRIX_LAYOUT_STRIDED_BATCH_OFFSET,
                                               &apart, sizeof(apart)));
  }
};

std::optional<cublasLtMatmulAlgo_t> favourite(const Descriptors& d) {
  const size_t workspace = at::cuda::getCUDABlasLtWorkspaceSize();
  cublasLtMatmulPreference_t preference = nullptr;
  if (!ok(cublasLtMatmulPreferenceCreate(&preference))) return {};
  cublasLtMatmulPreferenceSetAttribute(preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES,
                                       &workspace, sizeof(workspace));
  cublasLtMatmulHeuristicResult_t result{};
  int count = 0;
  const bool found =
      ok(cublasLtMatmulAlgoGetHeuristic(at::cuda::getCurrentCUDABlasLtHandle(), d.operation,
                                        d.weight, d.x, d.y, d.y, preference, 1, &result, &count));
  cublasLtMatmulPreferenceDestroy(preference);
  if (!found || count == 0) return {};
  return result.algo;
}

// cuBLASLt's favourite for a shape, asked for once.
std::optional<cublasLtMatmulAlgo_t> algorithm(const Product& p, const Descriptors& d) {
  using Key = std::tuple<int64_t, int64_t, int64_t, int64_t, int, int, bool>;
  static std::mutex mutex;
  static std::map<Key, std::optional<cublasLtMatmulAlgo_t>> known;
  const Key key{p.models(), p.rows(), p.in(), p.out(), type_of(p.x), type_of(p.y), p.gelu};
  const std::lock_guard lock(mutex);
  auto at = known.find(key);
  if (at == known.end()) at = known.emplace(key, favourite(d)).first;
  return at->second;
}

// False where cuBLASLt has no such product.
bool multiply(const Product& p) {
  const Descriptors d(p);
  if (!d.valid) return false;
  const auto algo = algorithm(p, d);
  const float one = 1, zero = 0;
  return algo && ok(cublasLtMatmul(at::cuda::getCurrentCUDABlasLtHandle(), d.operation, &one,
                                   p.weight.const_data_ptr(), d.weight, p.x.const_data_ptr(), d.x,
                                   &zero, p.y.mutable_data_ptr(), d.y, p.y.mutable_data_ptr(), d.y,
                                   &*algo, at::cuda::getCUDABlasLtWorkspace(),
                                   at::cuda::getCUDABlasLtWorkspaceSize(), current_stream()));
}

bool aligned(const at::Tensor& t) {
  return reinterpret_cast<uintptr_t>(t.const_data_ptr()) % 16 == 0;
}

at::Tensor by_torch(const at::Tensor& x, const at::Tensor& weight,
                    const std::optional<at::Tensor>& bias, bool wide) {
  const at::Tensor by = weight.transpose(1, 2);
  if (!wide) return bias ? at::baddbmm(*bias, x, by) : at::bmm(x, by);
  return bias ? at::baddbmm(*bias, x, by, at::kFloat) : at::bmm(x, by, at::kFloat);
}

at::Tensor batched_linear_cuda(const at::Tensor& x, const at::Tensor& weight,
                               const std::optional<at::Tensor>& bias, bool wide, bool gelu) {
  at::AutoDispatchBelowADInplaceOrView guard;
  batched_linear_op::check(x, weight, bias, wide);
  const c10::cuda::CUDAGuard device(x.device());
  const int64_t out = weight.size(1), in = x.size(2);
  // cuBLASLt's GELU is a 16-bit one.
  const bool fits = bias && has_cuda_dtype(x.scalar_type()) && x.numel() > 0 && out % 8 == 0 &&
                    in % 8 == 0 && !(gelu && (wide || x.scalar_type() == at::kFloat));
  if (fits) {
    const Product p{
        weight.contiguous(), x.contiguous(), bias->contiguous(),
        at::empty({x.size(0), x.size(1), out}, wide ? x.options().dtype(at::kFloat) : x.options()),
        gelu};
    if (aligned(p.x) && aligned(p.weight) && aligned(p.bias) && multiply(p)) return p.y;
  }
  const at::Tensor y = by_torch(x, weight, bias, wide);
  return gelu ? at::gelu(y, "tanh") : y;
}

}  // namespace

TORCH_LIBRARY_IMPL(refract, CUDA, m) { m.impl("batched_linear", &batched_linear_cuda); }

}  // namespace refract
