#include "transforms/spiking/spiking_operand.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/where.h>
#include <ATen/ops/zeros_like.h>

#include <cmath>
#include <limits>

#include "core/error.h"

namespace refract {
namespace {

constexpr double kMove = 0.9;     // of s0
constexpr int64_t kCalls = 20;    // that move it
constexpr double kLeast = 1e-12;  // of s0: of an input that is 0 everywhere

}  // namespace

SpikingOperand::SpikingOperand(Build build, const std::string& name, int64_t levels,
                               bool is_probability)
    : name_(name),
      levels_(levels_of(levels, !is_probability)),
      is_probability_(is_probability),
      arena_(build.arena),
      log_scale_(build.arena.declare({name + "_log_scale", {1}, Init::zeros()})),
      start_(build.buffers.declare(name + "_start",
                                   at::tensor({std::numeric_limits<float>::infinity(),
                                               -std::numeric_limits<float>::infinity()}))) {}

at::Tensor SpikingOperand::from_data(const at::Tensor& x) const {
  const at::Tensor seen = x.detach().to(x.scalar_type() == at::kDouble ? at::kDouble : at::kFloat);
  const at::Tensor size = is_probability_
                              ? seen.square().sum().div(seen.gt(0).sum().clamp_min(1)).sqrt()
                              : seen.abs().mean();
  const double over = std::sqrt(static_cast<double>(levels_.high));
  return size.mul(2 / over).clamp_min(kLeast);
}

at::Tensor SpikingOperand::start(const ForwardContext& context, const at::Tensor& x) {
  const at::NoGradGuard no_grad;
  const at::Tensor& kept = start_->tensor;
  const at::Tensor minus_calls = kept.select(0, 0), value = kept.select(0, 1);
  if (!context.training) {
    known_ = known_ || kept[0].item<float>() <= kept[1].item<float>();
    return known_ ? value.clone() : from_data(x);
  }
  const at::Tensor seen = from_data(x).to(at::kFloat);
  const at::Tensor unset = minus_calls.gt(value);
  const at::Tensor calls = at::where(unset, at::zeros_like(value), minus_calls.neg());
  // 0.9 value + 0.1 seen, in a form that leaves a value alone which is seen again.
  const at::Tensor step = seen.sub(value).mul(1 - kMove);
  const at::Tensor moved = at::where(unset, seen, value.add(step));
  kept.copy_(at::where(calls.lt(kCalls), at::stack({calls.add(1).neg(), moved}), kept));
  // Later calls move the buffer, and a gradient needs this one's.
  return value.clone();
}

at::Tensor SpikingOperand::scale(const ForwardContext& context, const at::Tensor& x) {
  const at::ScalarType wide = x.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
  return arena_.leaf(log_scale_).select(0, 0).to(wide).exp().mul(start(context, x).to(wide));
}

at::Tensor SpikingOperand::quantized(const ForwardContext& context, const at::Tensor& x) {
  return lsq_quantize(x, scale(context, x), levels_);
}

at::Tensor SpikingOperand::stepped(const ForwardContext& context, const at::Tensor& x,
                                   SpikeTime& time, double additions_each) {
  at::Tensor s = scale(context, x);
  if (time.at_rest()) resting_ = s;
  // A neuron's threshold is no matter of what has come in so far.
  if (!known_ && resting_.defined()) s = resting_;
  const at::Tensor target = lsq_count(x, s, levels_);
  if (time.at_rest()) return lsq_value(target, s, x.scalar_type());
  if (time.step() == 1) count_ = at::zeros_like(target);
  if (!count_.defined() || count_.sizes() != target.sizes())
    fail("'{}': a spiking model goes on with the batch that it began with", name_);
  const at::Tensor spikes = spikes_towards(target, count_);
  time.count(name_, spikes, additions_each);
  count_ = count_.add(spikes);
  return lsq_value(count_, s, x.scalar_type());
}

at::Tensor spikes_towards(const at::Tensor& target, const at::Tensor& count) {
  return target.sub(count).sign_();
}

}  // namespace refract
