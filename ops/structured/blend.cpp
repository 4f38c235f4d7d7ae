// Schema, checks, composite form and autograd of blend.
#include "ops/structured/blend.h"

#include <ATen/ops/addcmul.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/lerp.h>
#include <ATen/ops/mul.h>

#include "ops/common/autograd.h"
#include "ops/common/check.h"
#include "ops/common/define.h"

namespace refract {
namespace {

bool is_half(const at::Tensor& t) {
  return t.scalar_type() == at::kBFloat16 || t.scalar_type() == at::kHalf;
}

// x * factor of x's type, computed in factor's: one pass, since what is written is rounded on the
// way.
at::Tensor scaled(const at::Tensor& x, const at::Tensor& factor) {
  at::Tensor out = at::empty_like(x);
  at::mul_out(out, x, is_half(x) ? factor : factor.to(x.scalar_type()));
  return out;
}

}  // namespace

void blend_op::check(const BlendInputs& in) {
  const char* op = "blend";
  check_floating(op, "y", in.y);
  check_like(op, "guide", in.guide, "y", in.y);
  check_same_shape(op, "guide", in.guide, "y", in.y);
  check_vector(op, "share", in.share, 1);
  TORCH_CHECK(in.share.scalar_type() == at::kFloat && in.share.device() == in.y.device(),
              "refract::", op, ": expected share to be float32 on ", in.y.device(), " as y, got ",
              in.share.scalar_type(), " on ", in.share.device());
}

at::Tensor composite::blend(const BlendInputs& in) {
  blend_op::check(in);
  if (!is_half(in.y)) return at::lerp(in.y, in.guide, in.share.to(in.y.scalar_type()));
  // A tensor of one element, unlike a scalar, lifts the product to its own type.
  at::Tensor out = at::empty_like(in.y);
  at::addcmul_out(out, in.guide.mul(in.share), in.y, in.share.neg().add(1));
  return out;
}

namespace {

struct Blend {
  static at::Tensor forward(AutogradContext* ctx, const BlendInputs& in) {
    ctx->save_for_backward({in.share});
    return blend(in);
  }
  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    const at::Tensor share = ctx->get_saved_variables()[0];
    variable_list out(2);
    if (ctx->needs_input_grad(0)) out[0] = scaled(grads[0], share.neg().add(1));
    if (ctx->needs_input_grad(1)) out[1] = scaled(grads[0], share);
    return out;
  }
};

at::Tensor blend_autograd(const BlendInputs& in) {
  return recorded<Blend>(blend, in, in.y, in.guide);
}

at::Tensor blend_meta(const BlendInputs& in) {
  blend_op::check(in);
  return at::empty_symint(in.y.sym_sizes(), in.y.options());
}

}  // namespace

TORCH_LIBRARY_FRAGMENT(refract, m) {
  define(m, blend, "(Tensor y, Tensor guide, Tensor share) -> Tensor")
      .composite<composite::blend>()
      .autograd<blend_autograd>()
      .meta<blend_meta>();
}

}  // namespace refract
