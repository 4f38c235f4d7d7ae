#include "transforms/spiking/lsq.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/LegacyTypeDispatch.h>
#include <ATen/ops/floor.h>
#include <ATen/ops/where.h>
#include <torch/csrc/autograd/custom_function.h>

#include <cmath>

namespace refract {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

// x / s in s's type.
at::Tensor in_steps(const at::Tensor& x, const at::Tensor& scale) {
  return x.to(scale.scalar_type()).div(scale);
}

at::Tensor nearest(const at::Tensor& steps, const Levels& levels) {
  return steps.add(0.5).floor_().clamp_(levels.low, levels.high);
}

struct Lsq : torch::autograd::Function<Lsq> {
  static at::Tensor forward(AutogradContext* ctx, const at::Tensor& x, const at::Tensor& scale,
                            const Levels& levels) {
    at::AutoDispatchBelowADInplaceOrView below;
    ctx->save_for_backward({x, scale});
    ctx->saved_data["low"] = levels.low;
    ctx->saved_data["high"] = levels.high;
    return lsq_value(lsq_count(x, scale, levels), scale, x.scalar_type());
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    const auto saved = ctx->get_saved_variables();
    const at::Tensor &x = saved[0], &scale = saved[1];
    const Levels levels{ctx->saved_data["low"].toInt(), ctx->saved_data["high"].toInt()};
    const at::Tensor steps = in_steps(x, scale);
    const at::Tensor inside = steps.gt(levels.low).logical_and(steps.lt(levels.high));
    at::Tensor for_x, for_scale;
    if (ctx->needs_input_grad(0)) for_x = grads[0].mul(inside);
    if (ctx->needs_input_grad(1)) {
      const at::Tensor count = nearest(steps, levels);
      const double numel = x.dim() > 1
                               ? static_cast<double>(x.numel()) / static_cast<double>(x.size(0))
                               : static_cast<double>(x.numel());
      for_scale = at::where(inside, count.sub(steps), count)
                      .mul(grads[0].to(scale.scalar_type()))
                      .sum()
                      .div(std::sqrt(static_cast<double>(levels.high) * numel))
                      .view(scale.sizes());
    }
    return {for_x, for_scale, at::Tensor()};
  }
};

}  // namespace

Levels levels_of(int64_t count, bool is_signed) {
  return is_signed ? Levels{-(count / 2), count - count / 2 - 1} : Levels{0, count - 1};
}

at::Tensor lsq_count(const at::Tensor& x, const at::Tensor& scale, const Levels& levels) {
  return nearest(in_steps(x, scale), levels);
}

at::Tensor lsq_value(const at::Tensor& count, const at::Tensor& scale, at::ScalarType type) {
  return count.mul(scale).to(type);
}

at::Tensor lsq_quantize(const at::Tensor& x, const at::Tensor& scale, const Levels& levels) {
  return Lsq::apply(x, scale, levels);
}

}  // namespace refract
