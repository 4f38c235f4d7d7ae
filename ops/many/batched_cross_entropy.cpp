#include "ops/many/batched_cross_entropy.h"

#include <ATen/core/LegacyTypeDispatch.h>
#include <ATen/ops/empty.h>
#include <c10/core/DeviceGuard.h>
#include <torch/library.h>

#include "ops/common/call.h"
#include "ops/common/check.h"
#include "ops/common/cuda_runtime.h"
#include "ops/dense/loss/cross_entropy.h"

namespace refract {
namespace batched_cross_entropy {

void check(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& targets,
           int64_t num_classes, bool split) {
  constexpr const char* op = "batched_linear_cross_entropy";
  check_floating(op, "x", x);
  check_like(op, "weight", weight, "x", x);
  TORCH_CHECK(x.dim() == 3, "refract::", op, ": expected x of shape [A, N, C], got ", x.sizes());
  TORCH_CHECK(weight.dim() == 3 && weight.size(0) == x.size(0) && weight.size(2) == x.size(2),
              "refract::", op, ": expected weight of shape [", x.size(0), ", Vp, ", x.size(2),
              "], got ", weight.sizes());
  TORCH_CHECK(targets.dim() == 1 && targets.size(0) == x.size(1), "refract::", op,
              ": expected targets of shape [", x.size(1), "], got ", targets.sizes());
  TORCH_CHECK(targets.scalar_type() == at::kLong || targets.scalar_type() == at::kInt,
              "refract::", op, ": expected targets to be int64 or int32, got ",
              targets.scalar_type());
  TORCH_CHECK(targets.device() == x.device(), "refract::", op, ": expected targets on ", x.device(),
              " as x, got ", targets.device());
  TORCH_CHECK(num_classes >= 1 && num_classes <= weight.size(1), "refract::", op,
              ": expected num_classes in [1, ", weight.size(1), "], the rows of weight, got ",
              num_classes);
  TORCH_CHECK(!split || (x.scalar_type() == at::kBFloat16 && x.size(2) % 3 == 0), "refract::", op,
              ": expected split x to be bfloat16 and three parts wide, got ", x.scalar_type(),
              " of width ", x.size(2));
}

}  // namespace batched_cross_entropy

namespace composite {

std::tuple<at::Tensor, at::Tensor> batched_linear_cross_entropy(const at::Tensor& x,
                                                                const at::Tensor& weight,
                                                                const at::Tensor& targets,
                                                                int64_t num_classes, bool split) {
  at::AutoDispatchBelowADInplaceOrView guard;
  batched_cross_entropy::check(x, weight, targets, num_classes, split);
  const int64_t models = x.size(0);
  at::Tensor loss = at::empty({models}, x.options().dtype(at::kDouble));
  at::Tensor correct = at::empty({models}, targets.options().dtype(at::kLong));
  for (int64_t a = 0; a < models; ++a) {
    const at::ScalarType dtype = split ? at::kFloat : x.scalar_type();
    const auto one =
        linear_cross_entropy_forward(x.select(0, a).to(dtype), weight.select(0, a).to(dtype),
                                     targets, num_classes, false, false);
    loss.select(0, a).copy_(std::get<0>(one));
    correct.select(0, a).copy_(std::get<1>(one));
  }
  return {loss, correct};
}

}  // namespace composite

BatchedCrossEntropy batched_linear_cross_entropy(const at::Tensor& x, const at::Tensor& weight,
                                                 const at::Tensor& targets, int64_t num_classes,
                                                 bool split) {
  using Signature = std::tuple<at::Tensor, at::Tensor>(const at::Tensor&, const at::Tensor&,
                                                       const at::Tensor&, int64_t, bool);
  static const auto op = find_op<Signature>("refract::batched_linear_cross_entropy");
  auto [loss, correct] = op.call(x, weight, targets, num_classes, split);
  return {loss, correct};
}

// The kernel's own rule for split operands is with_shape() of batched_cross_entropy_sm90a.cu; this
// one must not be wider, or the split logits would lie in memory.
bool has_fused_split_head(int64_t width, at::Device device) {
  constexpr int64_t kWidest = 608;  // of which the high part of 128 rows fits beside three tiles
  if (!device.is_cuda() || width % 32 != 0 || width > kWidest) return false;
  const c10::DeviceGuard guard(device);
  const CudaRuntime* cuda = cuda_runtime();
  return cuda && cuda->compute_capability() == 90;
}

namespace {

// Shapes and types only; the composite form asks for the number of models.
std::tuple<at::Tensor, at::Tensor> meta(const at::Tensor& x, const at::Tensor&,
                                        const at::Tensor& targets, int64_t, bool) {
  return {at::empty_symint({x.sym_size(0)}, x.options().dtype(at::kDouble)),
          at::empty_symint({x.sym_size(0)}, targets.options().dtype(at::kLong))};
}

}  // namespace

TORCH_LIBRARY_FRAGMENT(refract, m) {
  m.def(
      "batched_linear_cross_entropy(Tensor x, Tensor weight, Tensor targets, int num_classes,"
      " bool split=False) -> (Tensor loss_sum, Tensor num_correct)");
}

TORCH_LIBRARY_IMPL(refract, CompositeExplicitAutograd, m) {
  m.impl("batched_linear_cross_entropy", &composite::batched_linear_cross_entropy);
}

TORCH_LIBRARY_IMPL(refract, Meta, m) { m.impl("batched_linear_cross_entropy", &meta); }

}  // namespace refract
