#include "transforms/optical/granular_product.h"

#include <ATen/ops/aminmax.h>
#include <ATen/ops/isfinite.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/maximum.h>
#include <ATen/ops/minimum.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/where.h>

#include <limits>
#include <utility>

#include "ops/common/autograd.h"
#include "transforms/optical/straight_quantize.h"

namespace refract {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();

// The two ends of a range, so that they broadcast over rows of x.
std::pair<at::Tensor, at::Tensor> ends_of(const at::Tensor& range, const at::Tensor& x) {
  const at::Tensor ends = range.to(x.scalar_type());
  return {ends.select(-1, 0).unsqueeze(-1), ends.select(-1, 1).unsqueeze(-1)};
}

at::Tensor out_range_of(const at::Tensor& y, const GranularProduct& how) {
  const at::Tensor range = how.out_range.defined()
                               ? set_or_seen(how.out_range, whole_range(y, how.hidden))
                               : row_ranges(y, how.hidden);
  return how.out_factor.defined() ? scaled_range(range, how.out_factor) : range;
}

struct Inputs {
  const at::Tensor &a, &b;
  const GranularProduct& how;
  at::Tensor* seen;
};

at::Tensor product(const Inputs& in) {
  const GranularProduct& how = in.how;
  const at::Tensor a = granular_quantize(in.a, how.a_range, how.levels, 0);
  const at::Tensor b = how.b_values.defined()
                           ? how.b_values
                           : granular_quantize(in.b, how.b_range, how.levels, how.lut_min);
  const at::Tensor y = at::matmul(a, b.transpose(-1, -2));
  if (in.seen) *in.seen = whole_range(y, how.hidden);
  return granular_quantize(y, out_range_of(y, how), how.levels, 0, how.xi);
}

struct DenseGradient {
  static at::Tensor forward(AutogradContext* ctx, const Inputs& in) {
    ctx->save_for_backward({in.a, in.b});
    return product(in);
  }
  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    const auto saved = ctx->get_saved_variables();
    at::Tensor a, b;
    if (ctx->needs_input_grad(0)) a = at::matmul(grads[0], saved[1]);
    if (ctx->needs_input_grad(1)) b = at::matmul(grads[0].transpose(-1, -2), saved[0]);
    return {a, b};
  }
};

// Recorded step by step.
at::Tensor by_operands(const Inputs& in) {
  const GranularProduct& how = in.how;
  const at::Tensor a = straight_quantize(in.a, how.a_range, how.levels, 0);
  const at::Tensor b = straight_quantize(in.b, how.b_range, how.levels, how.lut_min);
  const at::Tensor y = at::matmul(a, b.transpose(-1, -2));
  if (in.seen) *in.seen = whole_range(y.detach(), how.hidden);
  return straight_quantize(y, out_range_of(y, how), how.levels, 0, how.xi);
}

}  // namespace

at::Tensor granular_product(const at::Tensor& a, const at::Tensor& b, const GranularProduct& how,
                            at::Tensor* seen) {
  const Inputs in{a, b, how, seen};
  if (how.operands && any_gradient(a, b, how.a_range, how.b_range, how.out_factor))
    return by_operands(in);
  if (any_gradient(a, b)) return Recorded<DenseGradient>::apply(a, b, in);
  at::AutoDispatchBelowADInplaceOrView below;
  return product(in);
}

at::Tensor granular_quantize(const at::Tensor& x, const at::Tensor& range, int64_t levels,
                             double lut_min, const at::Tensor& xi) {
  const auto [lo, hi] = ends_of(range, x);
  const auto top = static_cast<double>(levels - 1);
  const at::Tensor width = hi.sub(lo);
  // One buffer from here on: the passes over memory are what this costs.
  at::Tensor v = at::maximum(x, lo);
  at::minimum_out(v, v, hi);
  v.sub_(lo).mul_(width.add(1e-8).reciprocal().mul(top));
  if (xi.defined()) v.add_(xi.to(v.scalar_type()));
  v.round_().clamp_max_(top).mul_(width.div(top)).add_(lo);
  if (lut_min > 0) {
    const at::Tensor above = hi.mul(lut_min), below = lo.abs().mul(-lut_min);
    v = at::where(v.gt(0).logical_and_(v.lt(above)), above, v);
    v = at::where(v.lt(0).logical_and_(v.gt(below)), below, v);
  }
  return v;
}

at::Tensor row_ranges(const at::Tensor& x, const at::Tensor& hidden) {
  if (!hidden.defined() && any_gradient(x))  // aminmax has none
    return at::stack({x.amin(-1), x.amax(-1)}, -1).to(at::kFloat);
  if (!hidden.defined()) {
    const auto [lo, hi] = at::aminmax(x, -1);
    return at::stack({lo, hi}, -1).to(at::kFloat);
  }
  const at::Tensor lo = x.masked_fill(hidden, kInfinity).amin(-1);
  return at::stack({lo, x.masked_fill(hidden, -kInfinity).amax(-1)}, -1).to(at::kFloat);
}

at::Tensor whole_range(const at::Tensor& x, const at::Tensor& hidden) {
  const at::Tensor rows = row_ranges(x, hidden);
  return at::stack({rows.select(-1, 0).min(), rows.select(-1, 1).max()});
}

at::Tensor set_or_seen(const at::Tensor& range, const at::Tensor& seen) {
  return at::where(range.select(-1, 0).le(range.select(-1, 1)).unsqueeze(-1), range, seen);
}

void move_ranges_(const at::Tensor& range, const at::Tensor& seen, double smooth) {
  const auto s = static_cast<float>(smooth);
  const at::Tensor set = range.select(-1, 0).le(range.select(-1, 1)).unsqueeze(-1);
  const at::Tensor target = at::where(set, range.mul(s).add(seen.mul(1.0f - s)), seen);
  range.copy_(at::where(at::isfinite(seen).all(-1, true), target, range));
}

}  // namespace refract
