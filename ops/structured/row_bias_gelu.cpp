// Schema, checks, composite forms and autograd of row_bias_gelu.
#include "ops/structured/row_bias_gelu.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/gelu.h>
#include <ATen/ops/gelu_backward.h>

#include "ops/common/autograd.h"
#include "ops/common/check.h"
#include "ops/common/define.h"

namespace refract {
namespace row_bias_gelu_op {
namespace {

void check_fit(const char* op, const at::Tensor& x, const MaybeTensor& bias) {
  check_floating(op, "x", x);
  TORCH_CHECK(x.dim() == 2, "refract::", op, ": expected x of shape [F, n], got ", x.sym_sizes());
  if (!bias.has_value()) return;
  check_like(op, "bias", *bias, "x", x);
  check_vector(op, "bias", *bias, x.sym_size(0));
}

}  // namespace

void check(const BiasGeluInputs& in) { check_fit("row_bias_gelu", in.x, in.bias); }

void check_backward(const BiasGeluBackwardInputs& in) {
  const char* op = "row_bias_gelu_backward";
  check_fit(op, in.x, in.bias);
  check_like(op, "grad", in.grad, "x", in.x);
  check_same_shape(op, "grad", in.grad, "x", in.x);
}

}  // namespace row_bias_gelu_op

namespace {

const char* form(bool tanh_form) { return tanh_form ? "tanh" : "none"; }

// x + bias in the type that is computed in.
at::Tensor biased(const at::Tensor& x, const MaybeTensor& bias) {
  const at::ScalarType wide = x.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
  const at::Tensor h = x.contiguous().to(wide);
  return bias.has_value() ? h.add(bias->to(wide).unsqueeze(1)) : h;
}

}  // namespace

namespace composite {

at::Tensor row_bias_gelu(const BiasGeluInputs& in) {
  row_bias_gelu_op::check(in);
  return at::gelu(biased(in.x, in.bias), form(in.tanh_form)).to(in.x.scalar_type());
}

ActivationGradients row_bias_gelu_backward(const BiasGeluBackwardInputs& in) {
  row_bias_gelu_op::check_backward(in);
  const at::Tensor h = biased(in.x, in.bias);
  const at::Tensor grad_h =
      at::gelu_backward(in.grad.contiguous().to(h.scalar_type()), h, form(in.tanh_form));
  return {grad_h.to(in.x.scalar_type()), in.bias.has_value() ? grad_h.sum(1).to(in.x.scalar_type())
                                                             : at::empty({0}, in.x.options())};
}

}  // namespace composite

namespace {

struct RowBiasGelu {
  static at::Tensor forward(AutogradContext* ctx, const BiasGeluInputs& in) {
    ctx->save_for_backward({in.x, value_or_undefined(in.bias)});
    ctx->saved_data["tanh"] = in.tanh_form;
    return row_bias_gelu(in);
  }
  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    const auto saved = ctx->get_saved_variables();
    auto [grad_x, grad_bias] = row_bias_gelu_backward(grads[0], saved[0], optional_of(saved[1]),
                                                      ctx->saved_data["tanh"].toBool());
    return {grad_x, saved[1].defined() ? grad_bias : at::Tensor()};
  }
};

at::Tensor row_bias_gelu_autograd(const BiasGeluInputs& in) {
  return recorded<RowBiasGelu>(row_bias_gelu, in, in.x, in.bias);
}

at::Tensor row_bias_gelu_meta(const BiasGeluInputs& in) {
  row_bias_gelu_op::check(in);
  return at::empty_symint(in.x.sym_sizes(), in.x.options());
}

ActivationGradients row_bias_gelu_backward_meta(const BiasGeluBackwardInputs& in) {
  row_bias_gelu_op::check_backward(in);
  return {at::empty_symint(in.x.sym_sizes(), in.x.options()),
          in.bias.has_value() ? at::empty_symint({in.x.sym_size(0)}, in.x.options())
                              : at::empty({0}, in.x.options())};
}

}  // namespace

TORCH_LIBRARY_FRAGMENT(refract, m) {
  define(m, row_bias_gelu, "(Tensor x, Tensor? bias, bool tanh) -> Tensor")
      .composite<composite::row_bias_gelu>()
      .autograd<row_bias_gelu_autograd>()
      .meta<row_bias_gelu_meta>();
  define(m, row_bias_gelu_backward,
         "(Tensor grad, Tensor x, Tensor? bias, bool tanh) -> (Tensor grad_x, Tensor grad_bias)")
      .composite<composite::row_bias_gelu_backward>()
      .meta<row_bias_gelu_backward_meta>();
}

}  // namespace refract
