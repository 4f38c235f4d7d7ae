#include "ops/fused/split.h"

#include <ATen/core/LegacyTypeDispatch.h>
#include <ATen/ops/cat.h>
#include <torch/library.h>

#include "ops/common/call.h"
#include "ops/common/check.h"

namespace refract {
namespace {

void check(const at::Tensor& x) {
  TORCH_CHECK(x.scalar_type() == at::kFloat && x.dim() >= 1,
              "refract::split_bfloat16: expected x to be float32 with a dimension or more, got ",
              x.scalar_type(), " of shape ", x.sizes());
}

std::pair<at::Tensor, at::Tensor> parts(const at::Tensor& x) {
  const at::Tensor high = x.to(at::kBFloat16);
  return {high, x.sub(high.to(at::kFloat)).to(at::kBFloat16)};
}

at::Tensor split_composite(const at::Tensor& x) {
  at::AutoDispatchBelowADInplaceOrView guard;
  check(x);
  const auto [high, low] = parts(x);
  return at::cat({high, high, low}, -1);
}

}  // namespace

at::Tensor split_bfloat16(const at::Tensor& x) {
  static const auto op = find_op<at::Tensor(const at::Tensor&)>("refract::split_bfloat16");
  return op.call(x);
}

at::Tensor split_weight_bfloat16(const at::Tensor& w) {
  check(w);
  const auto [high, low] = parts(w);
  return at::cat({high, low, high}, -1);
}

TORCH_LIBRARY_FRAGMENT(refract, m) { m.def("split_bfloat16(Tensor x) -> Tensor"); }

TORCH_LIBRARY_IMPL(refract, CompositeExplicitAutograd, m) {
  m.impl("split_bfloat16", &split_composite);
}

}  // namespace refract
