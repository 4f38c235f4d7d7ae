// Schema, checks, composite form and autograd of linear.
#include "ops/dense/linear/linear.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/linear.h>
#include <ATen/ops/mm.h>

#include "ops/common/autograd.h"
#include "ops/common/check.h"
#include "ops/common/define.h"

namespace refract {
namespace linear_op {

void check(const LinearInputs& in) {
  check_floating("linear", "x", in.x);
  check_like("linear", "weight", in.weight, "x", in.x);
  TORCH_CHECK(in.x.dim() >= 1 && in.weight.dim() == 2 && in.weight.sym_size(1) == in.x.sym_size(-1),
              "refract::linear: expected x [..., K] and weight [N, K], got ", in.x.sym_sizes(),
              " and ", in.weight.sym_sizes());
  if (in.bias.has_value()) {
    check_like("linear", "bias", *in.bias, "x", in.x);
    check_vector("linear", "bias", *in.bias, in.weight.sym_size(0));
  }
}

void check_backward(const LinearBackwardInputs& in) {
  check({in.x, in.weight, kNoTensor});
  check_like("linear_backward", "grad", in.grad, "x", in.x);
  TORCH_CHECK(
      in.grad.dim() == in.x.dim() && in.grad.sym_size(-1) == in.weight.sym_size(0) &&
          in.grad.sym_sizes().slice(0, in.x.dim() - 1) == in.x.sym_sizes().slice(0, in.x.dim() - 1),
      "refract::linear_backward: expected grad of the output's shape for x ", in.x.sym_sizes(),
      " and weight ", in.weight.sym_sizes(), ", got ", in.grad.sym_sizes());
}

}  // namespace linear_op

at::Tensor composite::linear(const LinearInputs& in) {
  linear_op::check(in);
  return at::linear(in.x, in.weight, in.bias);
}

LinearGradients composite::linear_backward(const LinearBackwardInputs& in) {
  linear_op::check_backward(in);
  const at::Tensor g = in.grad.reshape({-1, in.weight.size(0)}),
                   none = at::empty({0}, in.x.options());
  return {in.need_x ? at::mm(g, in.weight).view(in.x.sizes()) : none,
          in.need_weight ? at::mm(g.t(), in.x.reshape({-1, in.weight.size(1)})) : none,
          in.need_bias ? g.sum(at::IntArrayRef{0}) : none};
}

at::Tensor fused_linear(const at::Tensor& x, const at::Tensor& weight, const MaybeTensor& bias) {
  return x.is_cpu() ? linear(x, weight, bias) : at::linear(x, weight, bias);
}

namespace {

struct Linear {
  static at::Tensor forward(AutogradContext* ctx, const LinearInputs& in) {
    ctx->save_for_backward({in.x, in.weight});
    ctx->saved_data["bias"] = wants_gradient(in.bias);
    return linear(in);
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

at::Tensor linear_autograd(const LinearInputs& in) {
  return recorded<Linear>(linear, in, in.x, in.weight, in.bias);
}

at::Tensor linear_meta(const LinearInputs& in) {
  linear_op::check(in);
  auto sizes = in.x.sym_sizes().vec();
  sizes.back() = in.weight.sym_size(0);
  return at::empty_symint(sizes, in.x.options());
}

LinearGradients linear_backward_meta(const LinearBackwardInputs& in) {
  linear_op::check_backward(in);
  const auto shaped = [&](bool needed, c10::SymIntArrayRef sizes) {
    return needed ? at::empty_symint(sizes, in.x.options()) : at::empty({0}, in.x.options());
  };
  return {shaped(in.need_x, in.x.sym_sizes()), shaped(in.need_weight, in.weight.sym_sizes()),
          shaped(in.need_bias, in.weight.sym_sizes().slice(0, 1))};
}

}  // namespace

TORCH_LIBRARY_FRAGMENT(refract, m) {
  define(m, linear, "(Tensor x, Tensor weight, Tensor? bias=None) -> Tensor")
      .composite<composite::linear>()
      .autograd<linear_autograd>()
      .meta<linear_meta>();
  define(m, linear_backward,
         "(Tensor grad, Tensor x, Tensor weight, bool need_x, bool need_weight, bool need_bias)"
         " -> (Tensor grad_x, Tensor grad_weight, Tensor grad_bias)")
      .composite<composite::linear_backward>()
      .meta<linear_backward_meta>();
}

}  // namespace refract
