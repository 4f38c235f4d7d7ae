#include "transforms/analog/surrogate.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/clamp.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/pad.h>

#include <tuple>

#include "ops/common/autograd.h"
#include "ops/dense/linear/linear.h"

namespace refract {
namespace {

constexpr double kEnoughInside = 0.95;

struct Recording : torch::CustomClassHolder {
  at::Tensor used, limits;
  int64_t rows = 0;
  double decay = 0;
};

// [M, K] -> [M, tiles, rows], with zeros behind the last.
at::Tensor in_tiles(const at::Tensor& x, int64_t tiles, int64_t rows) {
  const int64_t missing = tiles * rows - x.size(1);
  return (missing > 0 ? at::pad(x, {0, missing}) : x).view({x.size(0), tiles, rows});
}

// [M, K] -> [tiles].
at::Tensor sum_of_tiles(const at::Tensor& x, int64_t tiles, int64_t rows) {
  return in_tiles(x, tiles, rows).sum(at::IntArrayRef({0, 2}));
}

at::Tensor range_gradient(const at::Tensor& dx, const at::Tensor& x, const at::Tensor& range,
                          const Recording& call) {
  const int64_t width = x.size(-1), tiles = range.size(0);
  const bool is_double = dx.scalar_type() == at::kDouble;
  const at::Tensor g = dx.reshape({-1, width}).to(is_double ? at::kDouble : at::kFloat);
  const at::Tensor flat = x.reshape({-1, width}), r = call.limits;
  const at::Tensor above = flat.ge(r), below = flat.le(r.neg());
  const at::Tensor outside = g.clamp_max(0).mul(above).sub(g.clamp_min(0).mul(below));
  at::Tensor gradient = sum_of_tiles(outside, tiles, call.rows).mul(range);
  if (call.decay > 0) {
    const at::Tensor cut = above.logical_or(below).to(at::kFloat);
    const at::Tensor each = at::ones({1, width}, cut.options());
    const at::Tensor all = sum_of_tiles(each, tiles, call.rows).mul_(cut.size(0));
    const at::Tensor inside = sum_of_tiles(cut, tiles, call.rows).div_(all).lt(1 - kEnoughInside);
    gradient = gradient.add(range.mul(inside), call.decay);
  }
  return gradient.to(range.scalar_type());
}

struct Made {
  const at::Tensor& y;
  c10::intrusive_ptr<Recording> call;
};

struct Formula : torch::autograd::Function<Formula> {
  // `made` holds what is no input to autograd.
  static at::Tensor forward(AutogradContext* ctx, const at::Tensor& x, const at::Tensor& weight,
                            const MaybeTensor& range, const Made& made) {
    ctx->save_for_backward({x, weight, value_or_undefined(range)});
    ctx->saved_data["call"] = c10::IValue::make_capsule(made.call);
    return made.y;
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    const auto saved = ctx->get_saved_variables();
    const auto capsule = ctx->saved_data["call"].toCapsule();
    const auto& call = static_cast<const Recording&>(*capsule);
    const at::Tensor &x = saved[0], &weight = saved[1], &range = saved[2];
    const bool need_x = ctx->needs_input_grad(0), need_weight = ctx->needs_input_grad(1);
    const bool need_range = range.defined() && ctx->needs_input_grad(2);
    const at::Tensor r = call.limits;
    const at::Tensor seen = r.defined() ? at::clamp(x, r.neg(), r) : x;
    const at::Tensor& used = call.used.defined() ? call.used : weight;
    auto [dx, dw, unused] =
        linear_backward(grads[0], seen, used, need_x || need_range, need_weight, false);
    variable_list out(4);
    if (need_range) out[2] = range_gradient(dx, x, range, call);
    if (need_x) out[0] = r.defined() ? dx.masked_fill(x.abs().gt(r), 0) : dx;
    if (need_weight) out[1] = dw;
    return out;
  }
};

}  // namespace

at::Tensor with_surrogate_gradient(const at::Tensor& y, const Surrogate& of) {
  if (!any_gradient(of.x, of.weight, of.range)) return y;
  const auto call = c10::make_intrusive<Recording>();
  call->used = of.used;
  call->limits = of.limits;
  call->rows = of.rows;
  call->decay = of.decay;
  return Formula::apply(of.x, of.weight, optional_of(of.range), Made{y, call});
}

}  // namespace refract
