// Schema, checks, composite forms and autograd of bias_gelu and swiglu.
#include "ops/dense/activation/activation.h"

#include <ATen/core/LegacyTypeDispatch.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/gelu.h>
#include <ATen/ops/gelu_backward.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/library.h>

#include "ops/common/call.h"
#include "ops/common/check.h"

namespace refract {
namespace activation_op {

void check(const char* op, const at::Tensor& x, const std::optional<at::Tensor>& bias, bool gated) {
  check_floating(op, "x", x);
  TORCH_CHECK(x.dim() >= 1, "refract::", op, ": expected x of shape [..., ", gated ? "2F" : "F",
              "], got a scalar");
  if (gated) {
    TORCH_CHECK(x.sym_size(-1) % 2 == 0, "refract::", op,
                ": expected x of shape [..., 2F], [gate | up], got ", x.sym_sizes());
  }
  if (bias.has_value()) {
    check_like(op, "bias", *bias, "x", x);
    check_vector(op, "bias", *bias, x.sym_size(-1));
  }
}

void check_backward(const char* op, const at::Tensor& grad, const at::Tensor& x,
                    const std::optional<at::Tensor>& bias, bool gated) {
  check(op, x, bias, gated);
  check_like(op, "grad", grad, "x", x);
  const c10::SymInt last = gated ? x.sym_size(-1) / 2 : x.sym_size(-1);
  TORCH_CHECK(grad.dim() == x.dim() && grad.sym_size(-1) == last &&
                  grad.sym_sizes().slice(0, x.dim() - 1) == x.sym_sizes().slice(0, x.dim() - 1),
              "refract::", op, ": expected grad of the output's shape for x of shape ",
              x.sym_sizes(), ", got ", grad.sym_sizes());
}

}  // namespace activation_op

namespace composite {
namespace {

const char* form(bool tanh_form) { return tanh_form ? "tanh" : "none"; }

// x + bias in the type that is computed in.
at::Tensor biased(const at::Tensor& x, const std::optional<at::Tensor>& bias) {
  const at::ScalarType wide = x.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
  const at::Tensor h = x.contiguous().to(wide);
  return bias.has_value() ? h.add(bias->to(wide)) : h;
}

at::Tensor bias_gradient(const at::Tensor& grad_h, const at::Tensor& x,
                         const std::optional<at::Tensor>& bias) {
  if (!bias.has_value()) return at::empty({0}, x.options());
  return grad_h.sum_to_size({x.size(-1)}).to(x.scalar_type());
}

}  // namespace

at::Tensor bias_gelu(const at::Tensor& x, const std::optional<at::Tensor>& bias, bool tanh_form) {
  activation_op::check("bias_gelu", x, bias, false);
  return at::gelu(biased(x, bias), form(tanh_form)).to(x.scalar_type());
}

at::Tensor swiglu(const at::Tensor& x, const std::optional<at::Tensor>& bias) {
  activation_op::check("swiglu", x, bias, true);
  const at::Tensor h = biased(x, bias);
  const int64_t width = x.size(-1) / 2;
  const at::Tensor gate = h.narrow(-1, 0, width), up = h.narrow(-1, width, width);
  return gate.mul(gate.sigmoid()).mul(up).to(x.scalar_type());
}

std::tuple<at::Tensor, at::Tensor> bias_gelu_backward(const at::Tensor& grad, const at::Tensor& x,
                                                      const std::optional<at::Tensor>& bias,
                                                      bool tanh_form) {
  activation_op::check_backward("bias_gelu_backward", grad, x, bias, false);
  const at::Tensor h = biased(x, bias);
  const at::Tensor grad_h =
      at::gelu_backward(grad.contiguous().to(h.scalar_type()), h, form(tanh_form));
  return {grad_h.to(x.scalar_type()), bias_gradient(grad_h, x, bias)};
}

std::tuple<at::Tensor, at::Tensor> swiglu_backward(const at::Tensor& grad, const at::Tensor& x,
                                                   const std::optional<at::Tensor>& bias) {
  activation_op::check_backward("swiglu_backward", grad, x, bias, true);
  const at::Tensor h = biased(x, bias);
  const int64_t width = x.size(-1) / 2;
  const at::Tensor gate = h.narrow(-1, 0, width), up = h.narrow(-1, width, width);
  const at::Tensor g = grad.to(h.scalar_type()), s = gate.sigmoid();
  // d silu(z) / dz = s + z s (1 - s), the last two factors written as z s - z s s.
  const at::Tensor zs = gate.mul(s);
  const at::Tensor slope = s.add(zs.sub(zs.mul(s)));
  const at::Tensor grad_h = at::cat({g.mul(up).mul(slope), g.mul(zs)}, -1);
  return {grad_h.to(x.scalar_type()), bias_gradient(grad_h, x, bias)};
}

}  // namespace composite

at::Tensor bias_gelu(const at::Tensor& x, const std::optional<at::Tensor>& bias, bool tanh_form) {
  static const auto op = find_op<decltype(bias_gelu)>("refract::bias_gelu");
  return op.call(x, bias, tanh_form);
}

at::Tensor swiglu(const at::Tensor& x, const std::optional<at::Tensor>& bias) {
  static const auto op = find_op<decltype(swiglu)>("refract::swiglu");
  return op.call(x, bias);
}

std::tuple<at::Tensor, at::Tensor> bias_gelu_backward(const at::Tensor& grad, const at::Tensor& x,
                                                      const std::optional<at::Tensor>& bias,
                                                      bool tanh_form) {
  static const auto op = find_op<decltype(bias_gelu_backward)>("refract::bias_gelu_backward");
  return op.call(grad, x, bias, tanh_form);
}

std::tuple<at::Tensor, at::Tensor> swiglu_backward(const at::Tensor& grad, const at::Tensor& x,
                                                   const std::optional<at::Tensor>& bias) {
  static const auto op = find_op<decltype(swiglu_backward)>("refract::swiglu_backward");
  return op.call(grad, x, bias);
}

namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

struct BiasGelu : torch::autograd::Function<BiasGelu> {
  static at::Tensor forward(AutogradContext* ctx, const at::Tensor& x,
                            const std::optional<at::Tensor>& bias, bool tanh_form) {
    at::AutoDispatchBelowADInplaceOrView below;
    ctx->save_for_backward({x, value_or_undefined(bias)});
    ctx->saved_data["tanh"] = tanh_form;
    return bias_gelu(x, bias, tanh_form);
  }
  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    const auto saved = ctx->get_saved_variables();
    auto [grad_x, grad_bias] = bias_gelu_backward(grads[0], saved[0], optional_of(saved[1]),
                                                  ctx->saved_data["tanh"].toBool());
    return {grad_x, saved[1].defined() ? grad_bias : at::Tensor(), at::Tensor()};
  }
};

struct Swiglu : torch::autograd::Function<Swiglu> {
  static at::Tensor forward(AutogradContext* ctx, const at::Tensor& x,
                            const std::optional<at::Tensor>& bias) {
    at::AutoDispatchBelowADInplaceOrView below;
    ctx->save_for_backward({x, value_or_undefined(bias)});
    return swiglu(x, bias);
  }
  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    const auto saved = ctx->get_saved_variables();
    auto [grad_x, grad_bias] = swiglu_backward(grads[0], saved[0], optional_of(saved[1]));
    return {grad_x, saved[1].defined() ? grad_bias : at::Tensor()};
  }
};

at::Tensor bias_gelu_autograd(const at::Tensor& x, const std::optional<at::Tensor>& bias,
                              bool tanh_form) {
  if (any_gradient(x, bias)) return BiasGelu::apply(x, bias, tanh_form);
  at::AutoDispatchBelowADInplaceOrView below;
  return bias_gelu(x, bias, tanh_form);
}

at::Tensor swiglu_autograd(const at::Tensor& x, const std::optional<at::Tensor>& bias) {
  if (any_gradient(x, bias)) return Swiglu::apply(x, bias);
  at::AutoDispatchBelowADInplaceOrView below;
  return swiglu(x, bias);
}

at::Tensor bias_gelu_meta(const at::Tensor& x, const std::optional<at::Tensor>& bias, bool) {
  activation_op::check("bias_gelu", x, bias, false);
  return at::empty_symint(x.sym_sizes(), x.options());
}

at::Tensor swiglu_meta(const at::Tensor& x, const std::optional<at::Tensor>& bias) {
  activation_op::check("swiglu", x, bias, true);
  auto sizes = x.sym_sizes().vec();
  sizes.back() = sizes.back() / 2;
  return at::empty_symint(sizes, x.options());
}

std::tuple<at::Tensor, at::Tensor> backward_shapes(const at::Tensor& x, bool has_bias) {
  return {at::empty_symint(x.sym_sizes(), x.options()),
          has_bias ? at::empty_symint({x.sym_size(-1)}, x.options()) : at::empty({0}, x.options())};
}

std::tuple<at::Tensor, at::Tensor> bias_gelu_backward_meta(const at::Tensor&, const at::Tensor& x,
                                                           const std::optional<at::Tensor>& bias,
                                                           bool) {
  return backward_shapes(x, bias.has_value());
}

std::tuple<at::Tensor, at::Tensor> swiglu_backward_meta(const at::Tensor&, const at::Tensor& x,
                                                        const std::optional<at::Tensor>& bias) {
  return backward_shapes(x, bias.has_value());
}

}  // namespace

TORCH_LIBRARY_FRAGMENT(refract, m) {
  m.def("bias_gelu(Tensor x, Tensor? bias, bool tanh) -> Tensor");
  m.def("swiglu(Tensor x, Tensor? bias=None) -> Tensor");
  m.def(
      "bias_gelu_backward(Tensor grad, Tensor x, Tensor? bias, bool tanh)"
      " -> (Tensor grad_x, Tensor grad_bias)");
  m.def(
      "swiglu_backward(Tensor grad, Tensor x, Tensor? bias) -> (Tensor grad_x, Tensor grad_bias)");
}

TORCH_LIBRARY_IMPL(refract, CompositeExplicitAutograd, m) {
  m.impl("bias_gelu", composite::bias_gelu);
  m.impl("swiglu", composite::swiglu);
  m.impl("bias_gelu_backward", composite::bias_gelu_backward);
  m.impl("swiglu_backward", composite::swiglu_backward);
}

TORCH_LIBRARY_IMPL(refract, Autograd, m) {
  m.impl("bias_gelu", bias_gelu_autograd);
  m.impl("swiglu", swiglu_autograd);
}

TORCH_LIBRARY_IMPL(refract, Meta, m) {
  m.impl("bias_gelu", bias_gelu_meta);
  m.impl("swiglu", swiglu_meta);
  m.impl("bias_gelu_backward", bias_gelu_backward_meta);
  m.impl("swiglu_backward", swiglu_backward_meta);
}

}  // namespace refract
