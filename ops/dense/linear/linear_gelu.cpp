// Schema, checks, composite forms and autograd of linear_gelu.
#include "ops/dense/linear/linear_gelu.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/linear.h>
#include <ATen/ops/zeros.h>

#include "ops/common/autograd.h"
#include "ops/common/check.h"
#include "ops/common/define.h"
#include "ops/dense/activation/activation.h"

namespace refract {
namespace linear_gelu_op {

void check(const char* op, const LinearInputs& in) {
  check_floating(op, "x", in.x);
  check_like(op, "weight", in.weight, "x", in.x);
  TORCH_CHECK(in.x.dim() >= 1 && in.weight.dim() == 2 && in.weight.sym_size(1) == in.x.sym_size(-1),
              "refract::", op, ": expected x [..., K] and weight [F, K], got ", in.x.sym_sizes(),
              " and ", in.weight.sym_sizes());
  if (!in.bias.has_value()) return;
  check_like(op, "bias", *in.bias, "x", in.x);
  check_vector(op, "bias", *in.bias, in.weight.sym_size(0));
}

}  // namespace linear_gelu_op

namespace composite {

at::Tensor linear_gelu(const LinearInputs& in) {
  linear_gelu_op::check("linear_gelu", in);
  return bias_gelu({at::linear(in.x, in.weight), in.bias, /*tanh_form=*/true});
}

LinearGeluResult linear_gelu_forward(const LinearInputs& in) {
  linear_gelu_op::check("linear_gelu_forward", in);
  const at::Tensor h = at::linear(in.x, in.weight, in.bias);
  return {h, bias_gelu({h, kNoTensor, /*tanh_form=*/true})};
}

}  // namespace composite

namespace {

struct LinearGelu {
  static at::Tensor forward(AutogradContext* ctx, const LinearInputs& in) {
    const auto [h, y] = linear_gelu_forward(in);
    ctx->save_for_backward({in.x, in.weight, h});
    ctx->saved_data["bias"] = wants_gradient(in.bias);
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

at::Tensor linear_gelu_autograd(const LinearInputs& in) {
  linear_gelu_op::check("linear_gelu", in);
  return recorded<LinearGelu>(linear_gelu, in, in.x, in.weight, in.bias);
}

at::Tensor empty_of_width(const at::Tensor& x, const c10::SymInt& width) {
  auto sizes = x.sym_sizes().vec();
  sizes.back() = width;
  return at::empty_symint(sizes, x.options());
}

at::Tensor linear_gelu_meta(const LinearInputs& in) {
  linear_gelu_op::check("linear_gelu", in);
  return empty_of_width(in.x, in.weight.sym_size(0));
}

LinearGeluResult linear_gelu_forward_meta(const LinearInputs& in) {
  linear_gelu_op::check("linear_gelu_forward", in);
  return {empty_of_width(in.x, in.weight.sym_size(0)), empty_of_width(in.x, in.weight.sym_size(0))};
}

}  // namespace

TORCH_LIBRARY_FRAGMENT(refract, m) {
  define(m, linear_gelu, "(Tensor x, Tensor weight, Tensor? bias) -> Tensor")
      .composite<composite::linear_gelu>()
      .autograd<linear_gelu_autograd>()
      .meta<linear_gelu_meta>();
  define(m, linear_gelu_forward, "(Tensor x, Tensor weight, Tensor? bias) -> (Tensor h, Tensor y)")
      .composite<composite::linear_gelu_forward>()
      .meta<linear_gelu_forward_meta>();
}

}  // namespace refract
