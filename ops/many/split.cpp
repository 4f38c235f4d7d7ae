#include "ops/many/split.h"

#include <ATen/core/LegacyTypeDispatch.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/ones.h>
#include <torch/library.h>

#include "ops/common/call.h"
#include "ops/common/check.h"
#include "ops/dense/activation/activation.h"
#include "ops/dense/attention/attention.h"
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

at::Tensor split_composite(const at::Tensor& x) {
  at::AutoDispatchBelowADInplaceOrView guard;
  split_op::check("split_bfloat16", "x", x);
  const auto [high, low] = parts(x);
  return at::cat({high, high, low}, -1);
}

at::Tensor split_gelu_composite(const at::Tensor& x, bool tanh_form) {
  at::AutoDispatchBelowADInplaceOrView guard;
  split_op::check("split_gelu_bfloat16", "x", x);
  return split_composite(bias_gelu(x, std::nullopt, tanh_form));
}

}  // namespace

namespace split_norm {

void check(const at::Tensor& x, const std::optional<at::Tensor>& residual,
           const std::optional<at::Tensor>& weight, const std::optional<at::Tensor>& bias) {
  constexpr const char* op = "split_norm_bfloat16";
  TORCH_CHECK(x.scalar_type() == at::kFloat && x.dim() == 3, "refract::", op,
              ": expected x to be float32 of shape [A, N, C], got ", x.scalar_type(), " of shape ",
              x.sizes());
  if (residual) {
    check_like(op, "residual", *residual, "x", x);
    check_same_shape(op, "residual", *residual, "x", x);
  }
  for (const auto& affine : {weight, bias}) {
    if (!affine) continue;
    check_like(op, "weight or bias", *affine, "x", x);
    TORCH_CHECK(affine->dim() == 3 && affine->size(0) == x.size(0) && affine->size(1) == 1 &&
                    affine->size(2) == x.size(2),
                "refract::", op, ": expected weight and bias of shape [", x.size(0), ", 1, ",
                x.size(2), "], got ", affine->sizes());
  }
}

}  // namespace split_norm

namespace composite {

std::tuple<at::Tensor, at::Tensor> split_norm_bfloat16(const at::Tensor& x,
                                                       const std::optional<at::Tensor>& residual,
                                                       const std::optional<at::Tensor>& weight,
                                                       const std::optional<at::Tensor>& bias,
                                                       double eps, bool rms) {
  at::AutoDispatchBelowADInplaceOrView guard;
  split_norm::check(x, residual, weight, bias);
  const at::Tensor unit = at::ones({x.size(2)}, x.options());
  auto [y, sum, mean, rstd] = norm_forward(x, residual, unit, std::nullopt, eps, rms);
  if (weight) y = y.mul(*weight);
  if (bias) y = y.add(*bias);
  return {split_composite(y), sum};
}

at::Tensor split_causal_attention(const at::Tensor& qkv, int64_t num_heads, int64_t num_kv_heads,
                                  double scale) {
  at::AutoDispatchBelowADInplaceOrView guard;
  split_op::check("split_causal_attention", "qkv", qkv);
  return split_composite(causal_attention(qkv, num_heads, num_kv_heads, scale));
}

}  // namespace composite

std::tuple<at::Tensor, at::Tensor> split_norm_bfloat16(const at::Tensor& x,
                                                       const std::optional<at::Tensor>& residual,
                                                       const std::optional<at::Tensor>& weight,
                                                       const std::optional<at::Tensor>& bias,
                                                       double eps, bool rms) {
  static const auto op = find_op<decltype(split_norm_bfloat16)>("refract::split_norm_bfloat16");
  return op.call(x, residual, weight, bias, eps, rms);
}

at::Tensor split_causal_attention(const at::Tensor& qkv, int64_t num_heads, int64_t num_kv_heads,
                                  double scale) {
  static const auto op =
      find_op<decltype(split_causal_attention)>("refract::split_causal_attention");
  return op.call(qkv, num_heads, num_kv_heads, scale);
}

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
  split_op::check("split_weight_bfloat16", "w", w);
  const auto [high, low] = parts(w);
  return at::cat({high, low, high}, -1);
}

TORCH_LIBRARY_FRAGMENT(refract, m) {
  m.def("split_bfloat16(Tensor x) -> Tensor");
  m.def("split_gelu_bfloat16(Tensor x, bool tanh_form) -> Tensor");
  m.def(
      "split_norm_bfloat16(Tensor x, Tensor? residual, Tensor? weight, Tensor? bias, float eps,"
      " bool rms) -> (Tensor, Tensor)");
  m.def(
      "split_causal_attention(Tensor qkv, int num_heads, int num_kv_heads, float scale) -> Tensor");
}

TORCH_LIBRARY_IMPL(refract, CompositeExplicitAutograd, m) {
  m.impl("split_bfloat16", &split_composite);
  m.impl("split_gelu_bfloat16", &split_gelu_composite);
  m.impl("split_norm_bfloat16", &composite::split_norm_bfloat16);
  m.impl("split_causal_attention", &composite::split_causal_attention);
}

namespace {

// Shapes only; the composite form asks for numbers.
at::Tensor split_attention_meta(const at::Tensor& qkv, int64_t num_heads, int64_t num_kv_heads,
                                double) {
  causal_attention_op::check(qkv, num_heads, num_kv_heads);
  auto sizes = qkv.sym_sizes().vec();
  sizes[2] = sizes[2] / (num_heads + 2 * num_kv_heads) * num_heads * 3;
  return at::empty_symint(sizes, qkv.options().dtype(at::kBFloat16));
}

}  // namespace

TORCH_LIBRARY_IMPL(refract, Meta, m) { m.impl("split_causal_attention", &split_attention_meta); }

}  // namespace refract
