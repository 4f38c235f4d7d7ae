#include "ops/fused/split.h"

#include <ATen/core/LegacyTypeDispatch.h>
#include <ATen/ops/cat.h>
#include <torch/library.h>

#include "ops/common/call.h"
#include "ops/common/check.h"
#include "ops/fused/activation.h"

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

at::Tensor split_gelu_composite(const at::Tensor& x, bool tanh_form) {
  at::AutoDispatchBelowADInplaceOrView guard;
  check(x);
  return split_composite(bias_gelu(x, std::nullopt, tanh_form));
}

}  // namespace

at::Tensor split_gelu_bfloat16(const at::Tensor& x, bool tanh_form) {
  static const auto op =
      find_op<at::Tensor(const at::Tensor&, bool)>("refract::split_gelu_bfloat16");
  return op.call(x, tanh_form);
}

at::Tensor split_bfloat16(const at::Tensor& x) {
  static const auto op = find_op<at::Tensor(const at::Tensor&)>("refract::split_bfloat16");
  return op.call(x);
}

at::Tensor split_weight_bfloat16(const at::Tensor& w) {
  check(w);
  const auto [high, low] = parts(w);
  return at::cat({high, low, high}, -1);
}

TORCH_LIBRARY_FRAGMENT(refract, m) {
  m.def("split_bfloat16(Tensor x) -> Tensor");
  m.def("split_gelu_bfloat16(Tensor x, bool tanh_form) -> Tensor");
}

TORCH_LIBRARY_IMPL(refract, CompositeExplicitAutograd, m) {
  m.impl("split_bfloat16", &split_composite);
  m.impl("split_gelu_bfloat16", &split_gelu_composite);
}

}  // namespace refract
