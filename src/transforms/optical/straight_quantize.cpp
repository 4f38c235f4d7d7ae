#include "transforms/optical/straight_quantize.h"

#include <ATen/ops/stack.h>
#include <ATen/ops/zeros_like.h>

#include <functional>
#include <numeric>
#include <utility>

#include "ops/common/autograd.h"
#include "transforms/optical/granular_product.h"

namespace refract {
namespace {

struct QuantizerInputs {
  const at::Tensor &x, &range;
  int64_t levels;
  double lut_min;
  const at::Tensor& xi;
};

at::Tensor quantized_once(const QuantizerInputs& in) {
  return granular_quantize(in.x, in.range, in.levels, in.lut_min, in.xi);
}

// One end of a range, so that it broadcasts over rows of x.
at::Tensor end_of(const at::Tensor& range, int64_t end, const at::Tensor& x) {
  return range.select(-1, end).unsqueeze(-1).to(x.scalar_type());
}

// The sum over what one end of a range stands for.
at::Tensor summed(const at::Tensor& g, const at::Tensor& range) {
  return g.sum(-1).sum_to_size(range.select(-1, 0).sizes());
}

struct StraightThrough {
  static at::Tensor forward(AutogradContext* ctx, const QuantizerInputs& in) {
    at::Tensor y = quantized_once(in);
    ctx->save_for_backward({in.x, in.range, y});
    return y;
  }
  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    const auto saved = ctx->get_saved_variables();
    const at::Tensor &x = saved[0], &range = saved[1], &y = saved[2], &g = grads[0];
    const at::Tensor lo = end_of(range, 0, x), hi = end_of(range, 1, x);
    const at::Tensor below = x.lt(lo), above = x.gt(hi);
    at::Tensor for_x, for_range;
    if (ctx->needs_input_grad(0)) for_x = g.masked_fill(below.logical_or(above), 0);
    if (ctx->needs_input_grad(1)) {
      const at::Tensor added = y.sub(x.maximum(lo).minimum(hi)).div(hi.sub(lo).add(1e-8)).mul(g);
      const at::Tensor low = g.mul(below).sub(added), high = g.mul(above).add(added);
      for_range = at::stack({summed(low, range), summed(high, range)}, -1).to(range.scalar_type());
    }
    return {for_x, for_range};
  }
};

}  // namespace

at::Tensor straight_quantize(const at::Tensor& x, const at::Tensor& range, int64_t levels,
                             double lut_min, const at::Tensor& xi) {
  const QuantizerInputs in{x, range, levels, lut_min, xi};
  if (any_gradient(x, range)) return Recorded<StraightThrough>::apply(x, range, in);
  at::AutoDispatchBelowADInplaceOrView below;
  return quantized_once(in);
}

at::Tensor scaled_range(const at::Tensor& range, const at::Tensor& factor) {
  const at::Tensor wide = range.to(factor.scalar_type());
  const at::Tensor lo = wide.select(-1, 0), hi = wide.select(-1, 1);
  const at::Tensor fixed =
      at::zeros_like(lo).maximum(lo).minimum(hi).unsqueeze(-1);  // its number nearest to 0
  return wide.sub(fixed).mul(factor).add(fixed);
}

RangeFactor::RangeFactor(Build build, const std::string& name, std::vector<int64_t> sizes)
    : arena_(build.arena), sizes_(std::move(sizes)) {
  const int64_t count =
      std::accumulate(sizes_.begin(), sizes_.end(), int64_t{1}, std::multiplies<>());
  log_ = build.arena.declare({name, {count}, Init::zeros()});
}

at::Tensor RangeFactor::factor() const {
  const at::Tensor log = arena_.leaf(log_);
  return log.to(log.scalar_type() == at::kDouble ? at::kDouble : at::kFloat).exp().view(sizes_);
}

}  // namespace refract
