// Schema, checks, composite forms and autograd of gelu_mlp.
#include "ops/structured/gelu_mlp.h"

#include <ATen/core/LegacyTypeDispatch.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/linear.h>
#include <ATen/ops/matmul.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/library.h>

#include "ops/common/call.h"
#include "ops/common/check.h"
#include "ops/fused/activation.h"
#include "ops/structured/block_linear.h"

namespace refract {
namespace gelu_mlp_op {

void check_linear(const char* op, const at::Tensor& x, const at::Tensor& weight,
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

void check_second(const char* op, const at::Tensor& h, const at::Tensor& weight) {
  check_like(op, "the second weight", weight, "x", h);
  const bool plain = weight.dim() == 2 && weight.sym_size(1) == h.sym_size(-1);
  const bool blocks =
      weight.dim() == 3 && weight.sym_size(0) * weight.sym_size(2) == h.sym_size(-1);
  TORCH_CHECK(plain || blocks, "refract::", op, ": expected the second weight [N, ", h.sym_size(-1),
              "] or [B, N / B, ", h.sym_size(-1), " / B], got ", weight.sym_sizes());
}

void check_backward(const at::Tensor& grad, const at::Tensor& weight, const at::Tensor& h) {
  const char* op = "gelu_linear_backward";
  check_floating(op, "h", h);
  check_second(op, h, weight);
  check_like(op, "grad", grad, "h", h);
  const c10::SymInt width =
      weight.dim() == 2 ? weight.sym_size(0) : weight.sym_size(0) * weight.sym_size(1);
  TORCH_CHECK(grad.dim() == h.dim() && grad.sym_size(-1) == width &&
                  grad.sym_sizes().slice(0, grad.dim() - 1) == h.sym_sizes().slice(0, h.dim() - 1),
              "refract::", op, ": expected grad [..., ", width, "] for h ", h.sym_sizes(), ", got ",
              grad.sym_sizes());
}

}  // namespace gelu_mlp_op

namespace {

// x [..., F] times a plain or block diagonal weight.
at::Tensor product(const at::Tensor& x, const at::Tensor& weight) {
  return weight.dim() == 2 ? at::linear(x, weight) : block_linear(x, weight, {});
}

at::Tensor flat(const at::Tensor& x) { return x.reshape({-1, x.size(-1)}); }

}  // namespace

namespace composite {

at::Tensor gelu_mlp(const at::Tensor& x, const at::Tensor& weight1,
                    const std::optional<at::Tensor>& bias1, const at::Tensor& weight2) {
  gelu_mlp_op::check_linear("gelu_mlp", x, weight1, bias1);
  const at::Tensor h = at::linear(x, weight1);
  gelu_mlp_op::check_second("gelu_mlp", h, weight2);
  return product(bias_gelu(h, bias1, /*tanh_form=*/true), weight2);
}

std::tuple<at::Tensor, at::Tensor> linear_gelu(const at::Tensor& x, const at::Tensor& weight,
                                               const std::optional<at::Tensor>& bias) {
  gelu_mlp_op::check_linear("linear_gelu", x, weight, bias);
  const at::Tensor h = at::linear(x, weight, bias);
  return {h, bias_gelu(h, {}, /*tanh_form=*/true)};
}

std::tuple<at::Tensor, at::Tensor> gelu_linear_backward(const at::Tensor& grad,
                                                        const at::Tensor& weight,
                                                        const at::Tensor& h) {
  gelu_mlp_op::check_backward(grad, weight, h);
  const at::Tensor grad_y = product(grad, weight.transpose(-2, -1));
  const at::Tensor grad_h = std::get<0>(bias_gelu_backward(grad_y, h, {}, /*tanh_form=*/true));
  return {grad_h, grad_h.sum_to_size({h.size(-1)})};
}

}  // namespace composite

at::Tensor gelu_mlp(const at::Tensor& x, const at::Tensor& weight1,
                    const std::optional<at::Tensor>& bias1, const at::Tensor& weight2) {
  static const auto op = find_op<decltype(gelu_mlp)>("refract::gelu_mlp");
  return op.call(x, weight1, bias1, weight2);
}

std::tuple<at::Tensor, at::Tensor> linear_gelu(const at::Tensor& x, const at::Tensor& weight,
                                               const std::optional<at::Tensor>& bias) {
  static const auto op = find_op<decltype(linear_gelu)>("refract::linear_gelu");
  return op.call(x, weight, bias);
}

std::tuple<at::Tensor, at::Tensor> gelu_linear_backward(const at::Tensor& grad,
                                                        const at::Tensor& weight,
                                                        const at::Tensor& h) {
  static const auto op = find_op<decltype(gelu_linear_backward)>("refract::gelu_linear_backward");
  return op.call(grad, weight, h);
}

namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

struct GeluMlp : torch::autograd::Function<GeluMlp> {
  static at::Tensor forward(AutogradContext* ctx, const at::Tensor& x, const at::Tensor& weight1,
                            const std::optional<at::Tensor>& bias1, const at::Tensor& weight2) {
    at::AutoDispatchBelowADInplaceOrView below;
    const auto [h, y] = linear_gelu(x, weight1, bias1);
    gelu_mlp_op::check_second("gelu_mlp", h, weight2);
    ctx->save_for_backward({x, weight1, weight2, h, y});
    // Asked here, because a missing bias shifts the indices of needs_input_grad().
    ctx->saved_data["x"] = wants_gradient(x);
    ctx->saved_data["weight1"] = wants_gradient(weight1);
    ctx->saved_data["bias1"] = wants_gradient(bias1);
    ctx->saved_data["weight2"] = wants_gradient(weight2);
    return product(y, weight2);
  }
  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    const auto saved = ctx->get_saved_variables();
    const at::Tensor &x = saved[0], &weight1 = saved[1], &weight2 = saved[2], &h = saved[3],
                     &y = saved[4];
    at::Tensor grad_x, grad_weight1, grad_bias1, grad_weight2;
    const auto wanted = [ctx](const char* name) { return ctx->saved_data[name].toBool(); };
    if (wanted("weight2")) {
      grad_weight2 =
          weight2.dim() == 2
              ? at::matmul(flat(grads[0]).t(), flat(y))
              : std::get<1>(block_linear_backward(grads[0], y, weight2, {}, {false, true}));
    }
    const auto [grad_h, column_sums] = gelu_linear_backward(grads[0], weight2, h);
    if (wanted("x")) grad_x = at::matmul(grad_h, weight1);
    if (wanted("weight1")) grad_weight1 = at::matmul(flat(grad_h).t(), flat(x));
    if (wanted("bias1")) grad_bias1 = column_sums;
    return {grad_x, grad_weight1, grad_bias1, grad_weight2};
  }
};

at::Tensor gelu_mlp_autograd(const at::Tensor& x, const at::Tensor& weight1,
                             const std::optional<at::Tensor>& bias1, const at::Tensor& weight2) {
  gelu_mlp_op::check_linear("gelu_mlp", x, weight1, bias1);
  if (any_gradient(x, weight1, bias1, weight2)) {
    return GeluMlp::apply(x, weight1, bias1, weight2);
  }
  at::AutoDispatchBelowADInplaceOrView below;
  return gelu_mlp(x, weight1, bias1, weight2);
}

at::Tensor empty_of_width(const at::Tensor& x, const c10::SymInt& width) {
  auto sizes = x.sym_sizes().vec();
  sizes.back() = width;
  return at::empty_symint(sizes, x.options());
}

at::Tensor gelu_mlp_meta(const at::Tensor& x, const at::Tensor& weight1,
                         const std::optional<at::Tensor>& bias1, const at::Tensor& weight2) {
  gelu_mlp_op::check_linear("gelu_mlp", x, weight1, bias1);
  gelu_mlp_op::check_second("gelu_mlp", empty_of_width(x, weight1.sym_size(0)), weight2);
  return empty_of_width(
      x, weight2.dim() == 2 ? weight2.sym_size(0) : weight2.sym_size(0) * weight2.sym_size(1));
}

std::tuple<at::Tensor, at::Tensor> linear_gelu_meta(const at::Tensor& x, const at::Tensor& weight,
                                                    const std::optional<at::Tensor>& bias) {
  gelu_mlp_op::check_linear("linear_gelu", x, weight, bias);
  return {empty_of_width(x, weight.sym_size(0)), empty_of_width(x, weight.sym_size(0))};
}

std::tuple<at::Tensor, at::Tensor> gelu_linear_backward_meta(const at::Tensor& grad,
                                                             const at::Tensor& weight,
                                                             const at::Tensor& h) {
  gelu_mlp_op::check_backward(grad, weight, h);
  return {at::empty_symint(h.sym_sizes(), h.options()),
          at::empty_symint({h.sym_size(-1)}, h.options())};
}

}  // namespace

TORCH_LIBRARY_FRAGMENT(refract, m) {
  m.def("gelu_mlp(Tensor x, Tensor weight1, Tensor? bias1, Tensor weight2) -> Tensor");
  m.def("linear_gelu(Tensor x, Tensor weight, Tensor? bias) -> (Tensor h, Tensor y)");
  m.def(
      "gelu_linear_backward(Tensor grad, Tensor weight, Tensor h)"
      " -> (Tensor grad_h, Tensor column_sums)");
}

TORCH_LIBRARY_IMPL(refract, CompositeExplicitAutograd, m) {
  m.impl("gelu_mlp", composite::gelu_mlp);
  m.impl("linear_gelu", composite::linear_gelu);
  m.impl("gelu_linear_backward", composite::gelu_linear_backward);
}

TORCH_LIBRARY_IMPL(refract, Autograd, m) { m.impl("gelu_mlp", gelu_mlp_autograd); }

TORCH_LIBRARY_IMPL(refract, Meta, m) {
  m.impl("gelu_mlp", gelu_mlp_meta);
  m.impl("linear_gelu", linear_gelu_meta);
  m.impl("gelu_linear_backward", gelu_linear_backward_meta);
}

}  // namespace refract
