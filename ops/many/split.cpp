#include "ops/many/split.h"

#include <ATen/core/LegacyTypeDispatch.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/ones.h>

#include "ops/common/check.h"
#include "ops/common/define.h"
#include "ops/dense/activation/activation.h"
#include "ops/dense/norm/norm.h"

namespace refract {

namespace split_op {

void check(const char* op, const char* name, const at::Tensor& x) {
  TORCH_CHECK(x.scalar_type() == at::kFloat && x.dim() >= 1, "refract::", op, ": expected ", name,
              " to be float32 with a dimension or more, got ", x.scalar_type(), " of shape ",
              x.sizes());
}

}  // namespace split_op

namespace {

std::pair<at::Tensor, at::Tensor> parts(const at::Tensor& x) {
  const at::Tensor high = x.to(at::kBFloat16);
  return {high, x.sub(high.to(at::kFloat)).to(at::kBFloat16)};
}

}  // namespace

namespace split_norm {

void check(const SplitNormInputs& in) {
  constexpr const char* op = "split_norm_bfloat16";
  TORCH_CHECK(in.x.scalar_type() == at::kFloat && in.x.dim() == 3, "refract::", op,
              ": expected x to be float32 of shape [A, N, C], got ", in.x.scalar_type(),
              " of shape ", in.x.sizes());
  if (in.residual) {
    check_like(op, "residual", *in.residual, "x", in.x);
    check_same_shape(op, "residual", *in.residual, "x", in.x);
  }
  for (const auto& affine : {in.weight, in.bias}) {
    if (!affine) continue;
    check_like(op, "weight or bias", *affine, "x", in.x);
    TORCH_CHECK(affine->dim() == 3 && affine->size(0) == in.x.size(0) && affine->size(1) == 1 &&
                    affine->size(2) == in.x.size(2),
                "refract::", op, ": expected weight and bias of shape [", in.x.size(0), ", 1, ",
                in.x.size(2), "], got ", affine->sizes());
  }
}

}  // namespace split_norm

namespace composite {

at::Tensor split_bfloat16(const SplitInputs& in) {
  at::AutoDispatchBelowADInplaceOrView guard;
  split_op::check("split_bfloat16", "x", in.x);
  const auto [high, low] = parts(in.x);
  return at::cat({high, high, low}, -1);
}

at::Tensor split_gelu_bfloat16(const SplitGeluInputs& in) {
  at::AutoDispatchBelowADInplaceOrView guard;
  split_op::check("split_gelu_bfloat16", "x", in.x);
  return split_bfloat16({refract::bias_gelu(in.x, std::nullopt, in.tanh_form)});
}

SplitNormResult split_norm_bfloat16(const SplitNormInputs& in) {
  at::AutoDispatchBelowADInplaceOrView guard;
  split_norm::check(in);
  const at::Tensor unit = at::ones({in.x.size(2)}, in.x.options());
  auto [y, sum, mean, rstd] = norm_forward({in.x, in.residual, unit, kNoTensor, in.eps, in.rms});
  if (in.weight) y = y.mul(*in.weight);
  if (in.bias) y = y.add(*in.bias);
  return {split_bfloat16({y}), sum};
}

at::Tensor split_causal_attention(const CausalAttentionInputs& in) {
  at::AutoDispatchBelowADInplaceOrView guard;
  split_op::check("split_causal_attention", "qkv", in.qkv);
  return split_bfloat16({causal_attention(in)});
}

}  // namespace composite

at::Tensor split_weight_bfloat16(const at::Tensor& w) {
  split_op::check("split_weight_bfloat16", "w", w);
  const auto [high, low] = parts(w);
  return at::cat({high, low, high}, -1);
}

namespace {

// Shapes only; the composite form asks for numbers.
at::Tensor split_attention_meta(const CausalAttentionInputs& in) {
  causal_attention_op::check(in.qkv, in.num_heads, in.num_kv_heads);
  auto sizes = in.qkv.sym_sizes().vec();
  sizes[2] = sizes[2] / (in.num_heads + 2 * in.num_kv_heads) * in.num_heads * 3;
  return at::empty_symint(sizes, in.qkv.options().dtype(at::kBFloat16));
}

}  // namespace

TORCH_LIBRARY_FRAGMENT(refract, m) {
  define(m, split_bfloat16, "(Tensor x) -> Tensor").composite<composite::split_bfloat16>();
  define(m, split_gelu_bfloat16, "(Tensor x, bool tanh_form) -> Tensor")
      .composite<composite::split_gelu_bfloat16>();
  define(m, split_norm_bfloat16,
         "(Tensor x, Tensor? residual, Tensor? weight, Tensor? bias, float eps, bool rms)"
         " -> (Tensor, Tensor)")
      .composite<composite::split_norm_bfloat16>();
  define(m, split_causal_attention,
         "(Tensor qkv, int num_heads, int num_kv_heads, float scale) -> Tensor")
      .composite<composite::split_causal_attention>()
      .meta<split_attention_meta>();
}

}  // namespace refract
