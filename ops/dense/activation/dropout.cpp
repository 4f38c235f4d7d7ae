// Schema, checks, composite form and autograd of dropout.
#include "ops/dense/activation/dropout.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/where.h>
#include <ATen/ops/zeros_like.h>

#include "ops/common/autograd.h"
#include "ops/common/check.h"
#include "ops/common/define.h"
#include "ops/common/philox_tensor.h"

namespace refract {

void dropout_op::check(const DropoutInputs& in) {
  check_floating("dropout", "x", in.x);
  TORCH_CHECK(in.p >= 0 && in.p < 1, "refract::dropout: expected p in [0, 1), got ", in.p);
  TORCH_CHECK(
      in.clock.scalar_type() == at::kLong && in.clock.dim() == 1 && in.clock.sym_size(0) == 2,
      "refract::dropout: expected clock to be int64 [2] (step, first element), got ",
      in.clock.scalar_type(), " ", in.clock.sym_sizes());
  TORCH_CHECK(in.clock.device() == in.x.device(), "refract::dropout: expected clock on ",
              in.x.device(), " as x, got ", in.clock.device());
}

namespace composite {
at::Tensor dropout(const DropoutInputs& in) {
  dropout_op::check(in);
  const PhiloxKey key =
      philox_key(static_cast<uint64_t>(in.seed), static_cast<uint64_t>(in.stream));
  const at::Tensor uniform =
      philox_uniforms(key, in.clock.select(0, 0), in.clock.select(0, 1), in.x.numel());
  const at::Tensor keep = uniform.ge(static_cast<float>(in.p)).view(in.x.sizes());
  const at::ScalarType wide = in.x.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
  const at::Tensor scaled =
      in.x.contiguous().to(wide).mul(1.0 / (1.0 - in.p)).to(in.x.scalar_type());
  return at::where(keep, scaled, at::zeros_like(scaled));
}

}  // namespace composite

namespace {

struct Dropout {
  static at::Tensor forward(AutogradContext* ctx, const DropoutInputs& in) {
    ctx->save_for_backward({in.clock});
    ctx->saved_data["p"] = in.p;
    ctx->saved_data["seed"] = in.seed;
    ctx->saved_data["stream"] = in.stream;
    return dropout(in);
  }
  // The mask is drawn again: the gradient goes through the same op.
  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    const auto& data = ctx->saved_data;
    return {dropout(grads[0], data.at("p").toDouble(), data.at("seed").toInt(),
                    data.at("stream").toInt(), ctx->get_saved_variables()[0])};
  }
};

at::Tensor dropout_autograd(const DropoutInputs& in) {
  return recorded<Dropout>(dropout, in, in.x);
}

at::Tensor dropout_meta(const DropoutInputs& in) {
  dropout_op::check(in);
  return at::empty_symint(in.x.sym_sizes(), in.x.options());
}

}  // namespace

TORCH_LIBRARY_FRAGMENT(refract, m) {
  define(m, dropout, "(Tensor x, float p, int seed, int stream, Tensor clock) -> Tensor")
      .composite<composite::dropout>()
      .autograd<dropout_autograd>()
      .meta<dropout_meta>();
}

}  // namespace refract
