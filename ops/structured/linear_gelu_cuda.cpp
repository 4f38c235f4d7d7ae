// linear_gelu_forward by cuBLASLt, whose epilogue adds the bias, writes the pre-activation and
// applies GELU.
//
// A row-major matrix [rows, F] is a column-major [F, rows] to it, so F is the first dimension here
// and the bias runs along it.
#include <ATen/Context.h>
#include <ATen/cuda/CUDAContextLight.h>
#include <ATen/ops/empty.h>
#include <c10/cuda/CUDAGraphsC10Utils.h>
#include <cublasLt.h>
#include <torch/library.h>

#include <array>
#include <map>
#include <mutex>
#include <tuple>

#include "ops/common/launch.h"
#include "ops/structured/linear_gelu.h"

namespace refract {
namespace {

void check(cublasStatus_t status, const char* what) {
  TORCH_CHECK(status == CUBLAS_STATUS_SUCCESS, "refract::linear_gelu: ", what,
              " failed: ", cublasLtGetStatusString(status));
}

// y = gelu(W x + b) with h = W x + b: W [features, k], x [rows, k], h and y [rows, features].
struct Product {
  int64_t features, rows, k;
  const void *weight, *x, *bias;  // bias may be null
  void *h, *y;
  cudaDataType_t dtype;
};

class Descriptors {
 public:
  explicit Descriptors(const Product& p) {
    check(cublasLtMatmulDescCreate(&operation, CUBLAS_COMPUTE_32F, CUDA_R_32F), "a descriptor");
    set(CUBLASLT_MATMUL_DESC_TRANSA, CUBLAS_OP_T);
    set(CUBLASLT_MATMUL_DESC_EPILOGUE,
        p.bias != nullptr ? CUBLASLT_EPILOGUE_GELU_AUX_BIAS : CUBLASLT_EPILOGUE_GELU_AUX);
    set(CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_POINTER, p.h);
    set(CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_LD, p.features);
    if (p.bias != nullptr) set(CUBLASLT_MATMUL_DESC_BIAS_POINTER, p.bias);
    layout(&weight, p.dtype, p.k, p.features);
    layout(&x, p.dtype, p.k, p.rows);
    layout(&y, p.dtype, p.features, p.rows);
  }
  ~Descriptors() {
    cublasLtMatrixLayoutDestroy(y);
    cublasLtMatrixLayoutDestroy(x);
    cublasLtMatrixLayoutDestroy(weight);
    cublasLtMatmulDescDestroy(operation);
  }
  Descriptors(const Descriptors&) = delete;
  Descriptors& operator=(const Descriptors&) = delete;

  cublasLtMatmulDesc_t operation = nullptr;
  cublasLtMatrixLayout_t weight = nullptr, x = nullptr, y = nullptr;

 private:
  template <class T>
  void set(cublasLtMatmulDescAttributes_t attribute, const T& value) {
    check(cublasLtMatmulDescSetAttribute(operation, attribute, &value, sizeof(value)),
          "an attribute");
  }
  static void layout(cublasLtMatrixLayout_t* out, cudaDataType_t dtype, int64_t rows,
                     int64_t columns) {
    check(cublasLtMatrixLayoutCreate(out, dtype, static_cast<uint64_t>(rows),
                                     static_cast<uint64_t>(columns), rows),
          "a layout");
  }
};

cublasStatus_t launch(const Product& p, const Descriptors& d, const cublasLtMatmulAlgo_t& algo) {
  const float one = 1, zero = 0;
  return cublasLtMatmul(at::cuda::getCurrentCUDABlasLtHandle(), d.operation, &one, p.weight,
                        d.weight, p.x, d.x, &zero, p.y, d.y, p.y, d.y, &algo,
                        at::cuda::getCUDABlasLtWorkspace(), at::cuda::getCUDABlasLtWorkspaceSize(),
                        current_stream());
}

constexpr int kCandidates = 8;
using Candidates = std::array<cublasLtMatmulHeuristicResult_t, kCandidates>;

// Fills in the library's proposals, its favourite first; returns how many.
int propose(const Product& p, const Descriptors& d, Candidates& candidates) {
  const size_t workspace = at::cuda::getCUDABlasLtWorkspaceSize();
  cublasLtMatmulPreference_t preference = nullptr;
  check(cublasLtMatmulPreferenceCreate(&preference), "a preference");
  cublasLtMatmulPreferenceSetAttribute(preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES,
                                       &workspace, sizeof(workspace));
  int count = 0;
  const cublasStatus_t status = cublasLtMatmulAlgoGetHeuristic(
      at::cuda::getCurrentCUDABlasLtHandle(), d.operation, d.weight, d.x, d.y, d.y, preference,
      kCandidates, candidates.data(), &count);
  cublasLtMatmulPreferenceDestroy(preference);
  check(status, "choosing an algorithm");
  TORCH_CHECK(count > 0, "refract::linear_gelu: cuBLASLt has no algorithm for [", p.features, ", ",
              p.k, "] x ", p.rows);
  return count;
}

// Milliseconds of a few launches; they write what the op writes anyway.
float time_of(const Product& p, const Descriptors& d, const cublasLtMatmulAlgo_t& algo) {
  constexpr int kRuns = 5;
  constexpr float kNever = 1e30f;
  cudaEvent_t begin = nullptr, end = nullptr;
  cudaEventCreate(&begin);
  cudaEventCreate(&end);
  bool works = launch(p, d, algo) == CUBLAS_STATUS_SUCCESS;
  cudaEventRecord(begin, current_stream());
  for (int i = 0; works && i < kRuns; ++i) works = launch(p, d, algo) == CUBLAS_STATUS_SUCCESS;
  cudaEventRecord(end, current_stream());
  float ms = kNever;
  if (works && cudaEventSynchronize(end) == cudaSuccess) cudaEventElapsedTime(&ms, begin, end);
  cudaEventDestroy(begin);
  cudaEventDestroy(end);
  return ms;
}

bool capturing() {
  return c10::cuda::currentStreamCaptureStatusMayInitCtx() != c10::cuda::CaptureStatus::None;
}

// The algorithm for a shape, chosen at its first use: the fastest proposal, which the favourite
// often is not, or where results have to repeat from run to run, or nothing can be timed, the
// favourite.
cublasLtMatmulAlgo_t algorithm(const Product& p, const Descriptors& d) {
  using Key = std::tuple<int64_t, int64_t, int64_t, cudaDataType_t, bool, bool>;
  static std::mutex mutex;
  static std::map<Key, cublasLtMatmulAlgo_t> known;
  const bool fixed = at::globalContext().deterministicAlgorithms();
  const Key key{p.features, p.rows, p.k, p.dtype, p.bias != nullptr, fixed};
  const std::lock_guard lock(mutex);
  if (const auto found = known.find(key); found != known.end()) return found->second;
  Candidates candidates{};
  const int count = propose(p, d, candidates);
  if (capturing()) return candidates[0].algo;
  int best = 0;
  float least = 0;
  for (int i = 0; !fixed && i < count; ++i) {
    const float ms = time_of(p, d, candidates[static_cast<size_t>(i)].algo);
    if (i == 0 || ms < least) {
      best = i;
      least = ms;
    }
  }
  return known.emplace(key, candidates[static_cast<size_t>(best)].algo).first->second;
}

bool aligned(const at::Tensor& t) {
  return !t.defined() || reinterpret_cast<uintptr_t>(t.const_data_ptr()) % 16 == 0;
}

std::tuple<at::Tensor, at::Tensor> linear_gelu_forward_cuda(
    const at::Tensor& x_in, const at::Tensor& weight_in, const std::optional<at::Tensor>& bias_in) {
  linear_gelu_op::check("linear_gelu_forward", x_in, weight_in, bias_in);
  const int64_t features = weight_in.size(0), k = weight_in.size(1);
  const at::Tensor x = x_in.contiguous(), weight = weight_in.contiguous();
  const at::Tensor bias = bias_in ? bias_in->contiguous() : at::Tensor();
  const bool half = x.scalar_type() == at::kBFloat16 || x.scalar_type() == at::kHalf;
  // Leading dimensions must be whole vectors of 16 bytes.
  if (!half || x.numel() == 0 || features == 0 || features % 8 != 0 || k % 8 != 0 || !aligned(x) ||
      !aligned(weight) || !aligned(bias)) {
    return composite::linear_gelu_forward(x_in, weight_in, bias_in);
  }
  const c10::cuda::CUDAGuard guard(x.device());
  auto sizes = x.sizes().vec();
  sizes.back() = features;
  at::Tensor h = at::empty(sizes, x.options()), y = at::empty(sizes, x.options());
  Product p{};
  p.features = features;
  p.rows = x.numel() / k;
  p.k = k;
  p.weight = weight.const_data_ptr();
  p.x = x.const_data_ptr();
  p.bias = bias.defined() ? bias.const_data_ptr() : nullptr;
  p.h = h.mutable_data_ptr();
  p.y = y.mutable_data_ptr();
  p.dtype = x.scalar_type() == at::kBFloat16 ? CUDA_R_16BF : CUDA_R_16F;
  const Descriptors descriptors(p);
  check(launch(p, descriptors, algorithm(p, descriptors)), "the product");
  return {h, y};
}

}  // namespace

TORCH_LIBRARY_IMPL(refract, CUDA, m) { m.impl("linear_gelu_forward", linear_gelu_forward_cuda); }

}  // namespace refract
