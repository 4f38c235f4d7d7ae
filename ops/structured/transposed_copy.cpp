// Schema, checks, composite form and autograd of transposed_copy.
#include "ops/structured/transposed_copy.h"

#include <ATen/ops/empty.h>

#include "ops/common/autograd.h"
#include "ops/common/check.h"
#include "ops/common/define.h"

namespace refract {

void transposed_copy_op::check(const TransposedCopyInputs& in) {
  const char* op = "transposed_copy";
  check_floating(op, "x", in.x);
  TORCH_CHECK(in.x.dim() == 2, "refract::", op, ": expected x of shape [rows, columns], got ",
              in.x.sym_sizes());
  if (!in.row_bias.has_value()) return;
  check_like(op, "row_bias", *in.row_bias, "x", in.x);
  check_vector(op, "row_bias", *in.row_bias, in.x.sym_size(0));
}

at::Tensor composite::transposed_copy(const TransposedCopyInputs& in) {
  transposed_copy_op::check(in);
  if (!in.row_bias.has_value()) return in.x.t().clone(at::MemoryFormat::Contiguous);
  return in.x.t().add(*in.row_bias).contiguous();
}

namespace {

at::Tensor transposed_copy_meta(const TransposedCopyInputs& in) {
  transposed_copy_op::check(in);
  return at::empty_symint({in.x.sym_size(1), in.x.sym_size(0)}, in.x.options());
}

struct TransposedCopy {
  static at::Tensor forward(AutogradContext* ctx, const TransposedCopyInputs& in) {
    ctx->saved_data["bias"] = wants_gradient(in.row_bias);
    return transposed_copy(in);
  }
  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    at::Tensor grad_bias;
    if (ctx->saved_data["bias"].toBool()) grad_bias = grads[0].sum(0);
    return {transposed_copy(grads[0]), grad_bias};
  }
};

at::Tensor transposed_copy_autograd(const TransposedCopyInputs& in) {
  return recorded<TransposedCopy>(transposed_copy, in, in.x, in.row_bias);
}

}  // namespace

TORCH_LIBRARY_FRAGMENT(refract, m) {
  define(m, transposed_copy, "(Tensor x, Tensor? row_bias=None) -> Tensor")
      .composite<composite::transposed_copy>()
      .autograd<transposed_copy_autograd>()
      .meta<transposed_copy_meta>();
}

}  // namespace refract
