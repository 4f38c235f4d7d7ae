// Schema, checks, composite forms and autograd of row_bias_gelu.
#include "ops/structured/row_bias_gelu.h"

#include <ATen/core/LegacyTypeDispatch.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/gelu.h>
#include <ATen/ops/gelu_backward.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/library.h>

#include "ops/common/call.h"
#include "ops/common/check.h"

namespace refract {
namespace row_gelu_op {

void check(const char* op, const at::Tensor& x, const std::optional<at::Tensor>& bias) {
  check_floating(op, "x", x);
  TORCH_CHECK(x.dim() == 2, "refract::", op, ": expected x of shape [F, n], got ", x.sym_sizes());
  if (!bias.has_value()) return;
  check_like(op, "bias", *bias, "x", x);
  check_vector(op, "bias", *bias, x.sym_size(0));
}

}  // namespace row_gelu_op

namespace {

void check_backward(const at::Tensor& grad, const at::Tensor& x,
                    const std::optional<at::Tensor>& bias) {
  row_gelu_op::check("row_bias_gelu_backward", x, bias);
  check_like("row_bias_gelu_backward", "grad", grad, "x", x);
  check_same_shape("row_bias_gelu_backward", "grad", grad, "x", x);
}

const char* form(bool tanh_form) { return tanh_form ? "tanh" : "none"; }

// x + bias in the type that is computed in.
at::Tensor biased(const at::Tensor& x, const std::optional<at::Tensor>& bias) {
  const at::ScalarType wide = x.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
  const at::Tensor h = x.contiguous().to(wide);
  return bias.has_value() ? h.add(bias->to(wide).unsqueeze(1)) : h;
}

}  // namespace

namespace composite {

at::Tensor row_bias_gelu(const at::Tensor& x, const std::optional<at::Tensor>& bias,
                         bool tanh_form) {
  row_gelu_op::check("row_bias_gelu", x, bias);
  return at::gelu(biased(x, bias), form(tanh_form)).to(x.scalar_type());
}

std::tuple<at::Tensor, at::Tensor> row_bias_gelu_backward(const at::Tensor& grad,
                                                          const at::Tensor& x,
                                                          const std::optional<at::Tensor>& bias,
                                                          bool tanh_form) {
  check_backward(grad, x, bias);
  const at::Tensor h = biased(x, bias);
  const at::Tensor grad_h =
      at::gelu_backward(grad.contiguous().to(h.scalar_type()), h, form(tanh_form));
  return {grad_h.to(x.scalar_type()),
          bias.has_value() ? grad_h.sum(1).to(x.scalar_type()) : at::empty({0}, x.options())};
}

}  // namespace composite

at::Tensor row_bias_gelu(const at::Tensor& x, const std::optional<at::Tensor>& bias,
                         bool tanh_form) {
  static const auto op = find_op<decltype(row_bias_gelu)>("refract::row_bias_gelu");
  return op.call(x, bias, tanh_form);
}

std::tuple<at::Tensor, at::Tensor> row_bias_gelu_backward(const at::Tensor& grad,
                                                          const at::Tensor& x,
                                                          const std::optional<at::Tensor>& bias,
                                                          bool tanh_form) {
  static const auto op =
      find_op<decltype(row_bias_gelu_backward)>("refract::row_bias_gelu_backward");
  return op.call(grad, x, bias, tanh_form);
}

namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

struct RowBiasGelu : torch::autograd::Function<RowBiasGelu> {
  static at::Tensor forward(AutogradContext* ctx, const at::Tensor& x,
                            const std::optional<at::Tensor>& bias, bool tanh_form) {
    at::AutoDispatchBelowADInplaceOrView below;
    ctx->save_for_backward({x, value_or_undefined(bias)});
    ctx->saved_data["tanh"] = tanh_form;
    return row_bias_gelu(x, bias, tanh_form);
  }
  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    const auto saved = ctx->get_saved_variables();
    auto [grad_x, grad_bias] = row_bias_gelu_backward(grads[0], saved[0], optional_of(saved[1]),
                                                      ctx->saved_data["tanh"].toBool());
    return {grad_x, saved[1].defined() ? grad_bias : at::Tensor(), at::Tensor()};
  }
};

at::Tensor row_bias_gelu_autograd(const at::Tensor& x, const std::optional<at::Tensor>& bias,
                                  bool tanh_form) {
  if (any_gradient(x, bias)) return RowBiasGelu::apply(x, bias, tanh_form);
  at::AutoDispatchBelowADInplaceOrView below;
  return row_bias_gelu(x, bias, tanh_form);
}

at::Tensor row_bias_gelu_meta(const at::Tensor& x, const std::optional<at::Tensor>& bias, bool) {
  row_gelu_op::check("row_bias_gelu", x, bias);
  return at::empty_symint(x.sym_sizes(), x.options());
}

std::tuple<at::Tensor, at::Tensor> row_bias_gelu_backward_meta(
    const at::Tensor& grad, const at::Tensor& x, const std::optional<at::Tensor>& bias, bool) {
  check_backward(grad, x, bias);
  return {at::empty_symint(x.sym_sizes(), x.options()),
          bias.has_value() ? at::empty_symint({x.sym_size(0)}, x.options())
                           : at::empty({0}, x.options())};
}

}  // namespace

TORCH_LIBRARY_FRAGMENT(refract, m) {
  m.def("row_bias_gelu(Tensor x, Tensor? bias, bool tanh) -> Tensor");
  m.def(
      "row_bias_gelu_backward(Tensor grad, Tensor x, Tensor? bias, bool tanh)"
      " -> (Tensor grad_x, Tensor grad_bias)");
}

TORCH_LIBRARY_IMPL(refract, CompositeExplicitAutograd, m) {
  m.impl("row_bias_gelu", composite::row_bias_gelu);
  m.impl("row_bias_gelu_backward", composite::row_bias_gelu_backward);
}

TORCH_LIBRARY_IMPL(refract, Autograd, m) { m.impl("row_bias_gelu", row_bias_gelu_autograd); }

TORCH_LIBRARY_IMPL(refract, Meta, m) {
  m.impl("row_bias_gelu", row_bias_gelu_meta);
  m.impl("row_bias_gelu_backward", row_bias_gelu_backward_meta);
}

}  // namespace refract
