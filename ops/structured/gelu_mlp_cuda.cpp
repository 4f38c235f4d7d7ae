// linear_gelu and gelu_linear_backward by cuBLASLt, whose epilogues carry bias and GELU.
//
// A row-major matrix [rows, F] is a column-major [F, rows] to it, so F is the first dimension here
// and a bias runs along it.
#include <ATen/cuda/CUDAContextLight.h>
#include <ATen/ops/empty.h>
#include <cublasLt.h>
#include <torch/library.h>

#include <map>
#include <mutex>
#include <tuple>

#include "ops/common/launch.h"
#include "ops/structured/gelu_mlp.h"

namespace refract {
namespace {

void check(cublasStatus_t status, const char* what) {
  TORCH_CHECK(status == CUBLAS_STATUS_SUCCESS, "refract::gelu_mlp: ", what,
              " failed: ", cublasLtGetStatusString(status));
}

// D [F, rows] = op(A) B with an epilogue; A holds the weight, B the activations [k, rows].
struct Product {
  int64_t features, rows, k;
  bool transpose_a;
  int64_t lda, ldb, ldd;
  const void *a, *b;
  void *d, *aux, *bias;  // aux has D's leading dimension; bias may be null
  cublasLtEpilogue_t epilogue;
  cudaDataType_t dtype;
};

// Owns the descriptors of one product.
class Descriptors {
 public:
  explicit Descriptors(const Product& p) {
    check(cublasLtMatmulDescCreate(&operation, CUBLAS_COMPUTE_32F, CUDA_R_32F), "a descriptor");
    const cublasOperation_t op = p.transpose_a ? CUBLAS_OP_T : CUBLAS_OP_N;
    set(CUBLASLT_MATMUL_DESC_TRANSA, op);
    set(CUBLASLT_MATMUL_DESC_EPILOGUE, p.epilogue);
    set(CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_POINTER, p.aux);
    set(CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_LD, p.ldd);
    if (p.bias != nullptr) set(CUBLASLT_MATMUL_DESC_BIAS_POINTER, p.bias);
    layout(&a, p.dtype, p.transpose_a ? p.k : p.features, p.transpose_a ? p.features : p.k, p.lda);
    layout(&b, p.dtype, p.k, p.rows, p.ldb);
    layout(&d, p.dtype, p.features, p.rows, p.ldd);
  }
  ~Descriptors() {
    cublasLtMatrixLayoutDestroy(d);
    cublasLtMatrixLayoutDestroy(b);
    cublasLtMatrixLayoutDestroy(a);
    cublasLtMatmulDescDestroy(operation);
  }
  Descriptors(const Descriptors&) = delete;
  Descriptors& operator=(const Descriptors&) = delete;

  cublasLtMatmulDesc_t operation = nullptr;
  cublasLtMatrixLayout_t a = nullptr, b = nullptr, d = nullptr;

 private:
  template <class T>
  void set(cublasLtMatmulDescAttributes_t attribute, const T& value) {
    check(cublasLtMatmulDescSetAttribute(operation, attribute, &value, sizeof(value)),
          "an attribute");
  }
  static void layout(cublasLtMatrixLayout_t* out, cudaDataType_t dtype, int64_t rows,
                     int64_t columns, int64_t leading) {
    check(cublasLtMatrixLayoutCreate(out, dtype, static_cast<uint64_t>(rows),
                                     static_cast<uint64_t>(columns), leading),
          "a layout");
  }
};

// The library's first choice; remembered, since asking takes longer than launching.
cublasLtMatmulAlgo_t algorithm(const Product& p, const Descriptors& descriptors, size_t workspace) {
  using Key = std::tuple<int64_t, int64_t, int64_t, int, int, bool>;
  static std::mutex mutex;
  static std::map<Key, cublasLtMatmulAlgo_t> known;
  const Key key{p.features, p.rows, p.k, p.epilogue, p.dtype, p.transpose_a};
  const std::lock_guard lock(mutex);
  if (const auto found = known.find(key); found != known.end()) return found->second;
  cublasLtMatmulPreference_t preference = nullptr;
  check(cublasLtMatmulPreferenceCreate(&preference), "a preference");
  cublasLtMatmulPreferenceSetAttribute(preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES,
                                       &workspace, sizeof(workspace));
  cublasLtMatmulHeuristicResult_t result{};
  int count = 0;
  const cublasStatus_t status = cublasLtMatmulAlgoGetHeuristic(
      at::cuda::getCurrentCUDABlasLtHandle(), descriptors.operation, descriptors.a, descriptors.b,
      descriptors.d, descriptors.d, preference, 1, &result, &count);
  cublasLtMatmulPreferenceDestroy(preference);
  check(status, "choosing an algorithm");
  TORCH_CHECK(count > 0, "refract::gelu_mlp: cuBLASLt has no algorithm for [", p.features, ", ",
              p.k, "] x ", p.rows);
  known.emplace(key, result.algo);
  return result.algo;
}

void run(const Product& p) {
  const Descriptors descriptors(p);
  const size_t workspace = at::cuda::getCUDABlasLtWorkspaceSize();
  const cublasLtMatmulAlgo_t algo = algorithm(p, descriptors, workspace);
  const float one = 1, zero = 0;
  check(cublasLtMatmul(at::cuda::getCurrentCUDABlasLtHandle(), descriptors.operation, &one, p.a,
                       descriptors.a, p.b, descriptors.b, &zero, p.d, descriptors.d, p.d,
                       descriptors.d, &algo, at::cuda::getCUDABlasLtWorkspace(), workspace,
                       current_stream()),
        "the product");
}

// Leading dimensions, and the places where blocks begin, must be whole vectors of 16 bytes.
bool fits(const at::Tensor& t, std::initializer_list<int64_t> sizes) {
  bool whole = t.scalar_type() == at::kBFloat16 || t.scalar_type() == at::kHalf;
  for (const int64_t size : sizes) whole = whole && size > 0 && size % 8 == 0;
  return whole;
}

bool aligned(const at::Tensor& t) {
  return reinterpret_cast<uintptr_t>(t.const_data_ptr()) % 16 == 0;
}

cudaDataType_t cuda_type(const at::Tensor& t) {
  return t.scalar_type() == at::kBFloat16 ? CUDA_R_16BF : CUDA_R_16F;
}

std::tuple<at::Tensor, at::Tensor> linear_gelu_cuda(const at::Tensor& x_in,
                                                    const at::Tensor& weight_in,
                                                    const std::optional<at::Tensor>& bias_in) {
  gelu_mlp_op::check_linear("linear_gelu", x_in, weight_in, bias_in);
  const int64_t features = weight_in.size(0), k = weight_in.size(1);
  const at::Tensor x = x_in.contiguous(), weight = weight_in.contiguous();
  const at::Tensor bias = bias_in ? bias_in->contiguous() : at::Tensor();
  if (x.numel() == 0 || !fits(x, {features, k}) || !aligned(x) || !aligned(weight) ||
      (bias.defined() && !aligned(bias))) {
    return composite::linear_gelu(x_in, weight_in, bias_in);
  }
  const c10::cuda::CUDAGuard guard(x.device());
  auto sizes = x.sizes().vec();
  sizes.back() = features;
  at::Tensor h = at::empty(sizes, x.options()), y = at::empty(sizes, x.options());
  Product p{};
  p.features = p.ldd = features;
  p.rows = x.numel() / k;
  p.k = p.lda = p.ldb = k;
  p.transpose_a = true;
  p.a = weight.const_data_ptr();
  p.b = x.const_data_ptr();
  p.d = y.mutable_data_ptr();
  p.aux = h.mutable_data_ptr();
  p.bias = bias.defined() ? const_cast<void*>(bias.const_data_ptr()) : nullptr;
  p.epilogue = bias.defined() ? CUBLASLT_EPILOGUE_GELU_AUX_BIAS : CUBLASLT_EPILOGUE_GELU_AUX;
  p.dtype = cuda_type(x);
  run(p);
  return {h, y};
}

std::tuple<at::Tensor, at::Tensor> gelu_linear_backward_cuda(const at::Tensor& grad_in,
                                                             const at::Tensor& weight_in,
                                                             const at::Tensor& h_in) {
  gelu_mlp_op::check_backward(grad_in, weight_in, h_in);
  const at::Tensor grad = grad_in.contiguous(), h = h_in.contiguous();
  const at::Tensor weight =
      weight_in.dim() == 2 ? weight_in.unsqueeze(0).contiguous() : weight_in.contiguous();
  const int64_t blocks = weight.size(0), k = weight.size(1), features = weight.size(2);
  if (h.numel() == 0 || !fits(h, {features, k}) || !aligned(grad) || !aligned(weight) ||
      !aligned(h)) {
    return composite::gelu_linear_backward(grad_in, weight_in, h_in);
  }
  const c10::cuda::CUDAGuard guard(h.device());
  at::Tensor grad_h = at::empty(h.sizes(), h.options());
  at::Tensor sums = at::empty({blocks * features}, h.options());
  const int64_t bytes = h.element_size();
  const auto at_offset = [bytes](const void* p, int64_t elements) {
    return const_cast<void*>(
        static_cast<const void*>(static_cast<const char*>(p) + elements * bytes));
  };
  for (int64_t b = 0; b < blocks; ++b) {
    Product p{};
    p.features = p.lda = features;
    p.ldd = blocks * features;
    p.rows = h.numel() / p.ldd;
    p.k = k;
    p.ldb = blocks * k;
    p.a = at_offset(weight.const_data_ptr(), b * k * features);
    p.b = at_offset(grad.const_data_ptr(), b * k);
    p.d = at_offset(grad_h.mutable_data_ptr(), b * features);
    p.aux = at_offset(h.const_data_ptr(), b * features);
    p.bias = at_offset(sums.mutable_data_ptr(), b * features);
    p.epilogue = CUBLASLT_EPILOGUE_DGELU_BGRAD;
    p.dtype = cuda_type(h);
    run(p);
  }
  return {grad_h, sums};
}

}  // namespace

TORCH_LIBRARY_IMPL(refract, CUDA, m) {
  m.impl("linear_gelu", linear_gelu_cuda);
  m.impl("gelu_linear_backward", gelu_linear_backward_cuda);
}

}  // namespace refract
