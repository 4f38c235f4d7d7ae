#include "ops/many/batched_cross_entropy.h"

#include <ATen/core/LegacyTypeDispatch.h>
#include <ATen/ops/empty.h>
#include <c10/core/DeviceGuard.h>

#include "ops/common/check.h"
#include "ops/common/cuda_runtime.h"
#include "ops/common/define.h"
#include "ops/dense/loss/cross_entropy.h"

namespace refract {
namespace batched_cross_entropy {

void check(const BatchedCrossEntropyInputs& in) {
  constexpr const char* op = "batched_linear_cross_entropy";
  check_floating(op, "x", in.x);
  check_like(op, "weight", in.weight, "x", in.x);
  TORCH_CHECK(in.x.dim() == 3, "refract::", op, ": expected x of shape [A, N, C], got ",
              in.x.sizes());
  TORCH_CHECK(in.weight.dim() == 3 && in.weight.size(0) == in.x.size(0) &&
                  in.weight.size(2) == in.x.size(2),
              "refract::", op, ": expected weight of shape [", in.x.size(0), ", Vp, ", in.x.size(2),
              "], got ", in.weight.sizes());
  TORCH_CHECK(in.targets.dim() == 1 && in.targets.size(0) == in.x.size(1), "refract::", op,
              ": expected targets of shape [", in.x.size(1), "], got ", in.targets.sizes());
  TORCH_CHECK(in.targets.scalar_type() == at::kLong || in.targets.scalar_type() == at::kInt,
              "refract::", op, ": expected targets to be int64 or int32, got ",
              in.targets.scalar_type());
  TORCH_CHECK(in.targets.device() == in.x.device(), "refract::", op, ": expected targets on ",
              in.x.device(), " as x, got ", in.targets.device());
  TORCH_CHECK(in.num_classes >= 1 && in.num_classes <= in.weight.size(1), "refract::", op,
              ": expected num_classes in [1, ", in.weight.size(1), "], the rows of weight, got ",
              in.num_classes);
  TORCH_CHECK(!in.split || (in.x.scalar_type() == at::kBFloat16 && in.x.size(2) % 3 == 0),
              "refract::", op, ": expected split x to be bfloat16 and three parts wide, got ",
              in.x.scalar_type(), " of width ", in.x.size(2));
}

}  // namespace batched_cross_entropy

namespace composite {

BatchedCrossEntropy batched_linear_cross_entropy(const BatchedCrossEntropyInputs& in) {
  at::AutoDispatchBelowADInplaceOrView guard;
  batched_cross_entropy::check(in);
  const int64_t models = in.x.size(0);
  at::Tensor loss = at::empty({models}, in.x.options().dtype(at::kDouble));
  at::Tensor correct = at::empty({models}, in.targets.options().dtype(at::kLong));
  for (int64_t a = 0; a < models; ++a) {
    const at::ScalarType dtype = in.split ? at::kFloat : in.x.scalar_type();
    const auto one =
        linear_cross_entropy_forward({in.x.select(0, a).to(dtype), in.weight.select(0, a).to(dtype),
                                      in.targets, in.num_classes, false, false});
    loss.select(0, a).copy_(std::get<0>(one));
    correct.select(0, a).copy_(std::get<1>(one));
  }
  return {loss, correct};
}

}  // namespace composite

// The kernel's own rule for split operands is with_shape() of batched_cross_entropy_sm90a.cu; this
// one must not be wider, or the split logits would lie in memory.
bool has_fused_split_head(int64_t width, at::Device device) {
  constexpr int64_t kWidest = 608;  // of which the high part of 128 rows fits beside three tiles
  if (!device.is_cuda() || width % 32 != 0 || width > kWidest) return false;
  const c10::DeviceGuard guard(device);
  const CudaRuntime* cuda = cuda_runtime();
  return cuda && cuda->has_hopper_kernels();
}

namespace {

// Shapes and types only; the composite form asks for the number of models.
BatchedCrossEntropy meta(const BatchedCrossEntropyInputs& in) {
  return {at::empty_symint({in.x.sym_size(0)}, in.x.options().dtype(at::kDouble)),
          at::empty_symint({in.x.sym_size(0)}, in.targets.options().dtype(at::kLong))};
}

}  // namespace

TORCH_LIBRARY_FRAGMENT(refract, m) {
  define(m, batched_linear_cross_entropy,
         "(Tensor x, Tensor weight, Tensor targets, int num_classes, bool split=False)"
         " -> (Tensor loss_sum, Tensor num_correct)")
      .composite<composite::batched_linear_cross_entropy>()
      .meta<meta>();
}

}  // namespace refract
