// Schema, checks, composite form and autograd of linear.
#include "ops/dense/linear/linear.h"

#include <ATen/core/LegacyTypeDispatch.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/linear.h>
#include <ATen/ops/mm.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/library.h>

#include "ops/common/call.h"
#include "ops/common/check.h"

namespace refract {
namespace linear_op {

void check(const at::Tensor& x, const at::Tensor& weight, const std::optional<at::Tensor>& bias) {
  check_floating("linear", "x", x);
  check_like("linear", "weight", weight, "x", x);
  TORCH_CHECK(x.dim() >= 1 && weight.dim() == 2 && weight.sym_size(1) == x.sym_size(-1),
              "refract::linear: expected x [..., K] and weight [N, K], got ", x.sym_sizes(),
              " and ", weight.sym_sizes());
  if (bias.has_value()) {
    check_like("linear", "bias", *bias, "x", x);
    check_vector("linear", "bias", *bias, weight.sym_size(0));
  }
}

void check_backward(const at::Tensor& grad, const at::Tensor& x, const at::Tensor& weight) {
  check(x, weight, std::nullopt);
  check_like("linear_backward", "grad", grad, "x", x);
  TORCH_CHECK(grad.dim() == x.dim() && grad.sym_size(-1) == weight.sym_size(0) &&
                  grad.sym_sizes().slice(0, x.dim() - 1) == x.sym_sizes().slice(0, x.dim() - 1),
              "refract::linear_backward: expected grad of the output's shape for x ", x.sym_sizes(),
              " and weight ", weight.sym_sizes(), ", got ", grad.sym_sizes());
}

}  // namespace linear_op

at::Tensor composite::linear(const at::Tensor& x, const at::Tensor& weight,
                             const std::optional<at::Tensor>& bias) {
  linear_op::check(x, weight, bias);
  return at::linear(x, weight, bias);
}

LinearGradients composite::linear_backward(const at::Tensor& grad, const at::Tensor& x,
                                           const at::Tensor& weight, bool need_x, bool need_weight,
                                           bool need_bias) {
  linear_op::check_backward(grad, x, weight);
  const at::Tensor g = grad.reshape({-1, weight.size(0)}), none = at::empty({0}, x.options());
  return {need_x ? at::mm(g, weight).view(x.sizes()) : none,
          need_weight ? at::mm(g.t(), x.reshape({-1, weight.size(1)})) : none,
          need_bias ? g.sum(at::IntArrayRef{0}) : none};
}

namespace {

using Linear = at::Tensor(const at::Tensor&, const at::Tensor&, const std::optional<at::Tensor>&);

at::Tensor call_op(const at::Tensor& x, const at::Tensor& weight,
                   const std::optional<at::Tensor>& bias) {
  static const auto op = find_op<Linear>("refract::linear");
  return op.call(x, weight, bias);
}

}  // namespace

at::Tensor fused_linear(const at::Tensor& x, const at::Tensor& weight,
                        const std::optional<at::Tensor>& bias) {
  return x.is_cpu() ? call_op(x, weight, bias) : at::linear(x, weight, bias);
}

LinearGradients linear_backward(const at::Tensor& grad, const at::Tensor& x,
                                const at::Tensor& weight, bool need_x, bool need_weight,
                                bool need_bias) {
  static const auto op = find_op<decltype(linear_backward)>("refract::linear_backward");
  return op.call(grad, x, weight, need_x, need_weight, need_bias);
}

namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

struct LinearFunction : torch::autograd::Function<LinearFunction> {
  static at::Tensor forward(AutogradContext* ctx, const at::Tensor& x, const at::Tensor& weight,
                            const std::optional<at::Tensor>& bias) {
    at::AutoDispatchBelowADInplaceOrView below;
    ctx->save_for_backward({x, weight});
    ctx->saved_data["bias"] = wants_gradient(bias);
    return call_op(x, weight, bias);
  }
  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    const auto saved = ctx->get_saved_variables();
    const bool need_x = ctx->needs_input_grad(0), need_weight = ctx->needs_input_grad(1),
               need_bias = ctx->saved_data["bias"].toBool();
    auto [x, weight, bias] =
        linear_backward(grads[0], saved[0], saved[1], need_x, need_weight, need_bias);
    return {need_x ? x : at::Tensor(), need_weight ? weight : at::Tensor(),
            need_bias ? bias : at::Tensor()};
  }
};

at::Tensor linear_autograd(const at::Tensor& x, const at::Tensor& weight,
                           const std::optional<at::Tensor>& bias) {
  if (any_gradient(x, weight, bias)) return LinearFunction::apply(x, weight, bias);
  at::AutoDispatchBelowADInplaceOrView below;
  return call_op(x, weight, bias);
}

at::Tensor linear_meta(const at::Tensor& x, const at::Tensor& weight,
                       const std::optional<at::Tensor>& bias) {
  linear_op::check(x, weight, bias);
  auto sizes = x.sym_sizes().vec();
  sizes.back() = weight.sym_size(0);
  return at::empty_symint(sizes, x.options());
}

LinearGradients linear_backward_meta(const at::Tensor& grad, const at::Tensor& x,
                                     const at::Tensor& weight, bool need_x, bool need_weight,
                                     bool need_bias) {
  linear_op::check_backward(grad, x, weight);
  const auto shaped = [&](bool needed, c10::SymIntArrayRef sizes) {
    return needed ? at::empty_symint(sizes, x.options()) : at::empty({0}, x.options());
  };
  return {shaped(need_x, x.sym_sizes()), shaped(need_weight, weight.sym_sizes()),
          shaped(need_bias, weight.sym_sizes().slice(0, 1))};
}

}  // namespace

TORCH_LIBRARY_FRAGMENT(refract, m) {
  m.def("linear(Tensor x, Tensor weight, Tensor? bias=None) -> Tensor");
  m.def(
      "linear_backward(Tensor grad, Tensor x, Tensor weight, bool need_x, bool need_weight,"
      " bool need_bias) -> (Tensor grad_x, Tensor grad_weight, Tensor grad_bias)");
}

TORCH_LIBRARY_IMPL(refract, CompositeExplicitAutograd, m) {
  m.impl("linear", composite::linear);
  m.impl("linear_backward", composite::linear_backward);
}

TORCH_LIBRARY_IMPL(refract, Autograd, m) { m.impl("linear", linear_autograd); }

TORCH_LIBRARY_IMPL(refract, Meta, m) {
  m.impl("linear", linear_meta);
  m.impl("linear_backward", linear_backward_meta);
}

}  // namespace refract
