#include "model/noise.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/full.h>

#include <numbers>

#include "ops/common/philox_tensor.h"

namespace refract {

at::Tensor standard_normal(const ForwardContext& context, const at::Tensor& like, uint64_t stream) {
  const at::NoGradGuard no_grad;
  const auto integer = at::TensorOptions().dtype(at::kLong).device(like.device());
  at::Tensor step, first;
  if (context.clock.defined()) {
    const at::Tensor clock = element_clock(context, like);
    step = clock.select(0, 0);
    first = clock.select(0, 1);
  } else {
    step = at::full({}, kEvaluationStep, integer);
    first = at::full({}, 0, integer);
  }
  const at::Tensor uniform = composite::philox_uniforms(philox_key(context.seed, stream), step,
                                                        first.mul(2), 2 * like.numel())
                                 .view({like.numel(), 2});
  // 1 - u lies in (0, 1], whose logarithm is finite.
  const at::Tensor radius = uniform.select(1, 0).neg().add(1).log().mul(-2).sqrt();
  const at::Tensor angle = uniform.select(1, 1).mul(2 * std::numbers::pi);
  return radius.mul(angle.cos()).view(like.sizes()).to(like.scalar_type());
}

}  // namespace refract
