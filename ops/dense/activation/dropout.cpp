// Schema, checks, composite form and autograd of dropout.
#include "ops/dense/activation/dropout.h"

#include <ATen/core/LegacyTypeDispatch.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/where.h>
#include <ATen/ops/zeros_like.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/library.h>

#include "ops/common/call.h"
#include "ops/common/check.h"
#include "ops/common/philox_tensor.h"

namespace refract {

void dropout_op::check(const at::Tensor& x, double p, const at::Tensor& clock) {
  check_floating("dropout", "x", x);
  TORCH_CHECK(p >= 0 && p < 1, "refract::dropout: expected p in [0, 1), got ", p);
  TORCH_CHECK(clock.scalar_type() == at::kLong && clock.dim() == 1 && clock.sym_size(0) == 2,
              "refract::dropout: expected clock to be int64 [2] (step, first element), got ",
              clock.scalar_type(), " ", clock.sym_sizes());
  TORCH_CHECK(clock.device() == x.device(), "refract::dropout: expected clock on ", x.device(),
              " as x, got ", clock.device());
}

namespace composite {
at::Tensor dropout(const at::Tensor& x, double p, int64_t seed, int64_t stream,
                   const at::Tensor& clock) {
  dropout_op::check(x, p, clock);
  const PhiloxKey key = philox_key(static_cast<uint64_t>(seed), static_cast<uint64_t>(stream));
  const at::Tensor uniform =
      philox_uniforms(key, clock.select(0, 0), clock.select(0, 1), x.numel());
  const at::Tensor keep = uniform.ge(static_cast<float>(p)).view(x.sizes());
  const at::ScalarType wide = x.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
  const at::Tensor scaled = x.contiguous().to(wide).mul(1.0 / (1.0 - p)).to(x.scalar_type());
  return at::where(keep, scaled, at::zeros_like(scaled));
}

}  // namespace composite

at::Tensor dropout(const at::Tensor& x, double p, int64_t seed, int64_t stream,
                   const at::Tensor& clock) {
  static const auto op = find_op<decltype(dropout)>("refract::dropout");
  return op.call(x, p, seed, stream, clock);
}

namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

struct Dropout : torch::autograd::Function<Dropout> {
  static at::Tensor forward(AutogradContext* ctx, const at::Tensor& x, double p, int64_t seed,
                            int64_t stream, const at::Tensor& clock) {
    at::AutoDispatchBelowADInplaceOrView below;
    ctx->save_for_backward({clock});
    ctx->saved_data["p"] = p;
    ctx->saved_data["seed"] = seed;
    ctx->saved_data["stream"] = stream;
    return dropout(x, p, seed, stream, clock);
  }
  // The mask is drawn again: the gradient goes through the same op.
  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    const auto& data = ctx->saved_data;
    variable_list out(5);
    out[0] = dropout(grads[0], data.at("p").toDouble(), data.at("seed").toInt(),
                     data.at("stream").toInt(), ctx->get_saved_variables()[0]);
    return out;
  }
};

at::Tensor dropout_autograd(const at::Tensor& x, double p, int64_t seed, int64_t stream,
                            const at::Tensor& clock) {
  if (any_gradient(x)) return Dropout::apply(x, p, seed, stream, clock);
  at::AutoDispatchBelowADInplaceOrView below;
  return dropout(x, p, seed, stream, clock);
}

at::Tensor dropout_meta(const at::Tensor& x, double p, int64_t, int64_t, const at::Tensor& clock) {
  dropout_op::check(x, p, clock);
  return at::empty_symint(x.sym_sizes(), x.options());
}

}  // namespace

TORCH_LIBRARY_FRAGMENT(refract, m) {
  m.def("dropout(Tensor x, float p, int seed, int stream, Tensor clock) -> Tensor");
}

TORCH_LIBRARY_IMPL(refract, CompositeExplicitAutograd, m) { m.impl("dropout", composite::dropout); }

TORCH_LIBRARY_IMPL(refract, Autograd, m) { m.impl("dropout", dropout_autograd); }

TORCH_LIBRARY_IMPL(refract, Meta, m) { m.impl("dropout", dropout_meta); }

}  // namespace refract
