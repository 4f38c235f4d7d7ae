// linear_gelu_forward by cuBLASLt, whose epilogue adds the bias, writes the pre-activation and
// applies GELU.
#include <ATen/Context.h>
#include <ATen/ops/empty.h>
#include <c10/cuda/CUDAGraphsC10Utils.h>

#include <map>
#include <mutex>
#include <tuple>

#include "ops/common/cublaslt.h"
#include "ops/common/define.h"
#include "ops/common/launch.h"
#include "ops/dense/linear/linear_gelu.h"

namespace refract {
namespace {

void check(cublasStatus_t status, const char* what) {
  TORCH_CHECK(status == CUBLAS_STATUS_SUCCESS, "refract::linear_gelu: ", what,
              " failed: ", cublasLtGetStatusString(status));
}

// Milliseconds of a few launches; they write what the op writes anyway.
float time_of(const cublaslt::Product& product, const cublasLtMatmulAlgo_t& algo) {
  constexpr int kRuns = 5;
  constexpr float kNever = 1e30f;
  cudaEvent_t begin = nullptr, end = nullptr;
  cudaEventCreate(&begin);
  cudaEventCreate(&end);
  bool works = product.launch(algo) == CUBLAS_STATUS_SUCCESS;
  cudaEventRecord(begin, current_stream());
  for (int i = 0; works && i < kRuns; ++i) works = product.launch(algo) == CUBLAS_STATUS_SUCCESS;
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
cublasLtMatmulAlgo_t algorithm(const cublaslt::Matrices& m, bool bias, cublaslt::Product& product) {
  constexpr int kCandidates = 8;
  using Key = std::tuple<int64_t, int64_t, int64_t, cudaDataType_t, bool, bool>;
  static std::mutex mutex;
  static std::map<Key, cublasLtMatmulAlgo_t> known;
  const bool fixed = at::globalContext().deterministicAlgorithms();
  const Key key{m.out, m.rows, m.in, m.type, bias, fixed};
  const std::lock_guard lock(mutex);
  if (const auto found = known.find(key); found != known.end()) return found->second;
  const auto candidates = product.propose(kCandidates);
  check(product.status(), "describing the product");
  TORCH_CHECK(!candidates.empty(), "refract::linear_gelu: cuBLASLt has no algorithm for [", m.out,
              ", ", m.in, "] x ", m.rows);
  if (capturing()) return candidates[0];
  size_t best = 0;
  float least = 0;
  for (size_t i = 0; !fixed && i < candidates.size(); ++i) {
    const float ms = time_of(product, candidates[i]);
    if (i == 0 || ms < least) {
      best = i;
      least = ms;
    }
  }
  return known.emplace(key, candidates[best]).first->second;
}

bool aligned(const at::Tensor& t) {
  return !t.defined() || reinterpret_cast<uintptr_t>(t.const_data_ptr()) % 16 == 0;
}

LinearGeluResult linear_gelu_forward_cuda(const LinearInputs& in) {
  linear_gelu_op::check("linear_gelu_forward", in);
  const int64_t features = in.weight.size(0), k = in.weight.size(1);
  const at::Tensor x = in.x.contiguous(), weight = in.weight.contiguous();
  const at::Tensor bias = in.bias ? in.bias->contiguous() : at::Tensor();
  const bool half = x.scalar_type() == at::kBFloat16 || x.scalar_type() == at::kHalf;
  // Leading dimensions must be whole vectors of 16 bytes.
  if (!half || x.numel() == 0 || features == 0 || features % 8 != 0 || k % 8 != 0 || !aligned(x) ||
      !aligned(weight) || !aligned(bias)) {
    return composite::linear_gelu_forward(in);
  }
  const c10::cuda::CUDAGuard guard(x.device());
  auto sizes = x.sizes().vec();
  sizes.back() = features;
  at::Tensor h = at::empty(sizes, x.options()), y = at::empty(sizes, x.options());
  const cudaDataType_t type = x.scalar_type() == at::kBFloat16 ? CUDA_R_16BF : CUDA_R_16F;
  const cublaslt::Matrices m{1,
                             x.numel() / k,
                             k,
                             features,
                             type,
                             type,
                             weight.const_data_ptr(),
                             x.const_data_ptr(),
                             y.mutable_data_ptr()};
  cublaslt::Product product(m);
  product.set(CUBLASLT_MATMUL_DESC_EPILOGUE,
              bias.defined() ? CUBLASLT_EPILOGUE_GELU_AUX_BIAS : CUBLASLT_EPILOGUE_GELU_AUX);
  product.set(CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_POINTER, h.mutable_data_ptr());
  product.set(CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_LD, features);
  if (bias.defined()) product.set(CUBLASLT_MATMUL_DESC_BIAS_POINTER, bias.const_data_ptr());
  check(product.launch(algorithm(m, bias.defined(), product)), "the product");
  return {h, y};
}

}  // namespace

TORCH_LIBRARY_FRAGMENT(refract, m) {
  forms(m, linear_gelu_forward).cuda<linear_gelu_forward_cuda>();
}

}  // namespace refract
