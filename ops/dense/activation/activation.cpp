// Schema, checks, composite forms and autograd of bias_gelu and swiglu.
#include "ops/dense/activation/activation.h"

#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/gelu.h>
#include <ATen/ops/gelu_backward.h>

#include "ops/common/autograd.h"
#include "ops/common/check.h"
#include "ops/common/define.h"

namespace refract {
namespace activation_op {

void check(const char* op, const at::Tensor& x, const MaybeTensor& bias, bool gated) {
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
                    const MaybeTensor& bias, bool gated) {
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
at::Tensor biased(const at::Tensor& x, const MaybeTensor& bias) {
  const at::ScalarType wide = x.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
  const at::Tensor h = x.contiguous().to(wide);
  return bias.has_value() ? h.add(bias->to(wide)) : h;
}

at::Tensor bias_gradient(const at::Tensor& grad_h, const at::Tensor& x, const MaybeTensor& bias) {
  if (!bias.has_value()) return at::empty({0}, x.options());
  return grad_h.sum_to_size({x.size(-1)}).to(x.scalar_type());
}

}  // namespace

at::Tensor bias_gelu(const BiasGeluInputs& in) {
  activation_op::check("bias_gelu", in.x, in.bias, false);
  return at::gelu(biased(in.x, in.bias), form(in.tanh_form)).to(in.x.scalar_type());
}

at::Tensor swiglu(const SwigluInputs& in) {
  activation_op::check("swiglu", in.x, in.bias, true);
  const at::Tensor h = biased(in.x, in.bias);
  const int64_t width = in.x.size(-1) / 2;
  const at::Tensor gate = h.narrow(-1, 0, width), up = h.narrow(-1, width, width);
  return gate.mul(gate.sigmoid()).mul(up).to(in.x.scalar_type());
}

ActivationGradients bias_gelu_backward(const BiasGeluBackwardInputs& in) {
  activation_op::check_backward("bias_gelu_backward", in.grad, in.x, in.bias, false);
  const at::Tensor h = biased(in.x, in.bias);
  const at::Tensor grad_h =
      at::gelu_backward(in.grad.contiguous().to(h.scalar_type()), h, form(in.tanh_form));
  return {grad_h.to(in.x.scalar_type()), bias_gradient(grad_h, in.x, in.bias)};
}

ActivationGradients swiglu_backward(const SwigluBackwardInputs& in) {
  activation_op::check_backward("swiglu_backward", in.grad, in.x, in.bias, true);
  const at::Tensor h = biased(in.x, in.bias);
  const int64_t width = in.x.size(-1) / 2;
  const at::Tensor gate = h.narrow(-1, 0, width), up = h.narrow(-1, width, width);
  const at::Tensor g = in.grad.to(h.scalar_type()), s = gate.sigmoid();
  // d silu(z) / dz = s + z s (1 - s), the last two factors written as z s - z s s.
  const at::Tensor zs = gate.mul(s);
  const at::Tensor slope = s.add(zs.sub(zs.mul(s)));
  const at::Tensor grad_h = at::cat({g.mul(up).mul(slope), g.mul(zs)}, -1);
  return {grad_h.to(in.x.scalar_type()), bias_gradient(grad_h, in.x, in.bias)};
}

}  // namespace composite

namespace {

// What a backward pass needs: the input and the bias.
template <class Inputs>
void save(AutogradContext* ctx, const Inputs& in) {
  ctx->save_for_backward({in.x, value_or_undefined(in.bias)});
}

struct BiasGelu {
  static at::Tensor forward(AutogradContext* ctx, const BiasGeluInputs& in) {
    save(ctx, in);
    ctx->saved_data["tanh"] = in.tanh_form;
    return bias_gelu(in);
  }
  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    const auto saved = ctx->get_saved_variables();
    auto [grad_x, grad_bias] = bias_gelu_backward(grads[0], saved[0], optional_of(saved[1]),
                                                  ctx->saved_data["tanh"].toBool());
    return {grad_x, saved[1].defined() ? grad_bias : at::Tensor()};
  }
};

struct Swiglu {
  static at::Tensor forward(AutogradContext* ctx, const SwigluInputs& in) {
    save(ctx, in);
    return swiglu(in);
  }
  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    const auto saved = ctx->get_saved_variables();
    auto [grad_x, grad_bias] = swiglu_backward(grads[0], saved[0], optional_of(saved[1]));
    return {grad_x, saved[1].defined() ? grad_bias : at::Tensor()};
  }
};

at::Tensor bias_gelu_autograd(const BiasGeluInputs& in) {
  return recorded<BiasGelu>(bias_gelu, in, in.x, in.bias);
}

at::Tensor swiglu_autograd(const SwigluInputs& in) {
  return recorded<Swiglu>(swiglu, in, in.x, in.bias);
}

at::Tensor bias_gelu_meta(const BiasGeluInputs& in) {
  activation_op::check("bias_gelu", in.x, in.bias, false);
  return at::empty_symint(in.x.sym_sizes(), in.x.options());
}

at::Tensor swiglu_meta(const SwigluInputs& in) {
  activation_op::check("swiglu", in.x, in.bias, true);
  auto sizes = in.x.sym_sizes().vec();
  sizes.back() = sizes.back() / 2;
  return at::empty_symint(sizes, in.x.options());
}

ActivationGradients backward_shapes(const at::Tensor& x, bool has_bias) {
  return {at::empty_symint(x.sym_sizes(), x.options()),
          has_bias ? at::empty_symint({x.sym_size(-1)}, x.options()) : at::empty({0}, x.options())};
}

ActivationGradients bias_gelu_backward_meta(const BiasGeluBackwardInputs& in) {
  return backward_shapes(in.x, in.bias.has_value());
}

ActivationGradients swiglu_backward_meta(const SwigluBackwardInputs& in) {
  return backward_shapes(in.x, in.bias.has_value());
}

}  // namespace

TORCH_LIBRARY_FRAGMENT(refract, m) {
  define(m, bias_gelu, "(Tensor x, Tensor? bias, bool tanh) -> Tensor")
      .composite<composite::bias_gelu>()
      .autograd<bias_gelu_autograd>()
      .meta<bias_gelu_meta>();
  define(m, swiglu, "(Tensor x, Tensor? bias=None) -> Tensor")
      .composite<composite::swiglu>()
      .autograd<swiglu_autograd>()
      .meta<swiglu_meta>();
  define(m, bias_gelu_backward,
         "(Tensor grad, Tensor x, Tensor? bias, bool tanh) -> (Tensor grad_x, Tensor grad_bias)")
      .composite<composite::bias_gelu_backward>()
      .meta<bias_gelu_backward_meta>();
  define(m, swiglu_backward,
         "(Tensor grad, Tensor x, Tensor? bias) -> (Tensor grad_x, Tensor grad_bias)")
      .composite<composite::swiglu_backward>()
      .meta<swiglu_backward_meta>();
}

}  // namespace refract
