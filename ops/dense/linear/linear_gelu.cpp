// Schema, checks, composite forms and autograd of linear_gelu.
#include "ops/dense/linear/linear_gelu.h"

#include <ATen/core/LegacyTypeDispatch.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/linear.h>
#include <ATen/ops/zeros.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/library.h>

#include "ops/common/call.h"
#include "ops/common/check.h"
#include "ops/dense/activation/activation.h"
#include "ops/dense/linear/linear.h"

namespace refract {
namespace linear_gelu_op {

void check(const char* op, const at::Tensor& x, const at::Tensor& weight,
           const std::optional<at::Tensor>& bias) {
  check_floating(op, "x", x);
  check_like(op, "weight", weight, "x", x);
  TORCH_CHECK(x.dim() >= 1 && weight.dim() == 2 && weight.sym_size(1) == x.sym_size(-1),
              "refract::", op, ": expected x [..., K] and weight [F, K], got ", x.sym_sizes(),
              " and ", weight.sym_sizes());
  if (!bias.has_value()) return;
  check_like(op, "bias", *bias, "x", x);
  check_vector(op, "bias", *bias, weight.sym_size(0));
}

}  // namespace linear_gelu_op

namespace composite {

at::Tensor linear_gelu(const at::Tensor& x, const at::Tensor& weight,
                       const std::optional<at::Tensor>& bias) {
  linear_gelu_op::check("linear_gelu", x, weight, bias);
  return bias_gelu(at::linear(x, weight), bias, /*tanh_form=*/true);
}

std::tuple<at::Tensor, at::Tensor> linear_gelu_forward(const at::Tensor& x,
                                                       const at::Tensor& weight,
                                                       const std::optional<at::Tensor>& bias) {
  linear_gelu_op::check("linear_gelu_forward", x, weight, bias);
  const at::Tensor h = at::linear(x, weight, bias);
  return {h, bias_gelu(h, {}, /*tanh_form=*/true)};
}

}  // namespace composite

at::Tensor linear_gelu(const at::Tensor& x, const at::Tensor& weight,
                       const std::optional<at::Tensor>& bias) {
  static const auto op = find_op<decltype(linear_gelu)>("refract::linear_gelu");
  return op.call(x, weight, bias);
}

std::tuple<at::Tensor, at::Tensor> linear_gelu_forward(const at::Tensor& x,
                                                       const at::Tensor& weight,
                                                       const std::optional<at::Tensor>& bias) {
  static const auto op = find_op<decltype(linear_gelu_forward)>("refract::linear_gelu_forward");
  return op.call(x, weight, bias);
}

namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

struct LinearGelu : torch::autograd::Function<LinearGelu> {
  static at::Tensor forward(AutogradContext* ctx, const at::Tensor& x, const at::Tensor& weight,
                            const std::optional<at::Tensor>& bias) {
    at::AutoDispatchBelowADInplaceOrView below;
    const auto [h, y] = linear_gelu_forward(x, weight, bias);
    ctx->save_for_backward({x, weight, h});
    ctx->saved_data["bias"] = wants_gradient(bias);
    return y;
  }
  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    const auto saved = ctx->get_saved_variables();
    const at::Tensor &x = saved[0], &weight = saved[1], &h = saved[2];
    const bool bias = ctx->saved_data["bias"].toBool();
    // h has its bias already; one of zeros asks for the column sums.
    const auto zero = bias ? std::optional(at::zeros({weight.size(0)}, h.options())) : std::nullopt;
    const auto [grad_h, sums] = bias_gelu_backward(grads[0], h, zero, /*tanh_form=*/true);
    const bool need_x = ctx->needs_input_grad(0), need_weight = ctx->needs_input_grad(1);
    const LinearGradients grad = linear_backward(grad_h, x, weight, need_x, need_weight, false);
    return {need_x ? std::get<0>(grad) : at::Tensor(),
            need_weight ? std::get<1>(grad) : at::Tensor(), bias ? sums : at::Tensor()};
  }
};

at::Tensor linear_gelu_autograd(const at::Tensor& x, const at::Tensor& weight,
                                const std::optional<at::Tensor>& bias) {
  linear_gelu_op::check("linear_gelu", x, weight, bias);
  if (any_gradient(x, weight, bias)) return LinearGelu::apply(x, weight, bias);
  at::AutoDispatchBelowADInplaceOrView below;
  return linear_gelu(x, weight, bias);
}

at::Tensor empty_of_width(const at::Tensor& x, const c10::SymInt& width) {
  auto sizes = x.sym_sizes().vec();
  sizes.back() = width;
  return at::empty_symint(sizes, x.options());
}

at::Tensor linear_gelu_meta(const at::Tensor& x, const at::Tensor& weight,
                            const std::optional<at::Tensor>& bias) {
  linear_gelu_op::check("linear_gelu", x, weight, bias);
  return empty_of_width(x, weight.sym_size(0));
}

std::tuple<at::Tensor, at::Tensor> linear_gelu_forward_meta(const at::Tensor& x,
                                                            const at::Tensor& weight,
                                                            const std::optional<at::Tensor>& bias) {
  linear_gelu_op::check("linear_gelu_forward", x, weight, bias);
  return {empty_of_width(x, weight.sym_size(0)), empty_of_width(x, weight.sym_size(0))};
}

}  // namespace

TORCH_LIBRARY_FRAGMENT(refract, m) {
  m.def("linear_gelu(Tensor x, Tensor weight, Tensor? bias) -> Tensor");
  m.def("linear_gelu_forward(Tensor x, Tensor weight, Tensor? bias) -> (Tensor h, Tensor y)");
}

TORCH_LIBRARY_IMPL(refract, CompositeExplicitAutograd, m) {
  m.impl("linear_gelu", composite::linear_gelu);
  m.impl("linear_gelu_forward", composite::linear_gelu_forward);
}

TORCH_LIBRARY_IMPL(refract, Autograd, m) { m.impl("linear_gelu", linear_gelu_autograd); }

TORCH_LIBRARY_IMPL(refract, Meta, m) {
  m.impl("linear_gelu", linear_gelu_meta);
  m.impl("linear_gelu_forward", linear_gelu_forward_meta);
}

}  // namespace refract
