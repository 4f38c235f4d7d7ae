// batched_linear by cuBLASLt: torch's baddbmm first copies the bias to every row of the result,
// which the product then reads again; here the epilogue adds it.
#include <ATen/core/LegacyTypeDispatch.h>
#include <ATen/ops/baddbmm.h>
#include <ATen/ops/bmm.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/gelu.h>

#include <map>
#include <mutex>
#include <optional>
#include <tuple>

#include "ops/common/cublaslt.h"
#include "ops/common/define.h"
#include "ops/common/dispatch.h"
#include "ops/common/launch.h"
#include "ops/many/batched_linear.h"

namespace refract {
namespace {

cudaDataType_t type_of(const at::Tensor& t) {
  return t.scalar_type() == at::kFloat      ? CUDA_R_32F
         : t.scalar_type() == at::kBFloat16 ? CUDA_R_16BF
                                            : CUDA_R_16F;
}

// cuBLASLt's favourite for a shape, asked for once; none where it has no such product.
std::optional<cublasLtMatmulAlgo_t> algorithm(const cublaslt::Matrices& m, bool gelu,
                                              cublaslt::Product& product) {
  using Key = std::tuple<int64_t, int64_t, int64_t, int64_t, int, int, bool>;
  static std::mutex mutex;
  static std::map<Key, std::optional<cublasLtMatmulAlgo_t>> known;
  const Key key{m.batches, m.rows, m.in, m.out, m.type, m.out_type, gelu};
  const std::lock_guard lock(mutex);
  if (const auto at = known.find(key); at != known.end()) return at->second;
  const auto proposed = product.propose(1);
  if (product.status() != CUBLAS_STATUS_SUCCESS) return {};  // may pass: ask again next time
  return known
      .emplace(key,
               proposed.empty() ? std::nullopt : std::optional<cublasLtMatmulAlgo_t>(proposed[0]))
      .first->second;
}

// y = x weight^T + bias, or its GELU; false where cuBLASLt has no such product. All contiguous.
bool multiply(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias,
              const at::Tensor& y, bool gelu) {
  const cublaslt::Matrices m{x.size(0),
                             x.size(1),
                             x.size(2),
                             y.size(2),
                             type_of(x),
                             type_of(y),
                             weight.const_data_ptr(),
                             x.const_data_ptr(),
                             y.mutable_data_ptr()};
  cublaslt::Product product(m);
  product.set(CUBLASLT_MATMUL_DESC_EPILOGUE,
              gelu ? CUBLASLT_EPILOGUE_GELU_BIAS : CUBLASLT_EPILOGUE_BIAS);
  product.set(CUBLASLT_MATMUL_DESC_BIAS_POINTER, bias.const_data_ptr());
  product.set(CUBLASLT_MATMUL_DESC_BIAS_BATCH_STRIDE, m.out);
  const auto chosen = algorithm(m, gelu, product);
  return chosen && product.launch(*chosen) == CUBLAS_STATUS_SUCCESS;
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

at::Tensor batched_linear_cuda(const BatchedLinearInputs& in) {
  at::AutoDispatchBelowADInplaceOrView guard;
  batched_linear_op::check(in);
  const c10::cuda::CUDAGuard device(in.x.device());
  const int64_t columns = in.weight.size(1), inner = in.x.size(2);
  // cuBLASLt's GELU is a 16-bit one.
  const bool fits = in.bias && has_cuda_dtype(in.x.scalar_type()) && in.x.numel() > 0 &&
                    columns % 8 == 0 && inner % 8 == 0 &&
                    !(in.gelu && (in.wide || in.x.scalar_type() == at::kFloat));
  if (fits) {
    const at::Tensor from = in.x.contiguous(), by = in.weight.contiguous(),
                     plus = in.bias->contiguous();
    const at::Tensor y = at::empty({in.x.size(0), in.x.size(1), columns},
                                   in.wide ? in.x.options().dtype(at::kFloat) : in.x.options());
    if (aligned(from) && aligned(by) && aligned(plus) && multiply(from, by, plus, y, in.gelu))
      return y;
  }
  const at::Tensor y = by_torch(in.x, in.weight, in.bias, in.wide);
  return in.gelu ? at::gelu(y, "tanh") : y;
}

}  // namespace

TORCH_LIBRARY_FRAGMENT(refract, m) { forms(m, batched_linear).cuda<batched_linear_cuda>(); }

}  // namespace refract
