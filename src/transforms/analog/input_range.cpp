#include "transforms/analog/input_range.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/maximum.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/where.h>
#include <ATen/ops/zeros.h>

#include <vector>

#include "model/backward/recompute.h"
#include "transforms/optical/granular_product.h"
#include "transforms/optical/optical_parameters.h"

namespace refract {
namespace {

constexpr double kStart = 3, kDeviations = 3;  // of a learned range: aihwkit's

}  // namespace

InputRange::InputRange(Build build, const LinearSpec& spec, const AnalogParameters& parameters)
    : parameters_(parameters), arena_(build.arena) {
  const TileGrid grid(spec.in_features, spec.out_features, parameters);
  if (parameters.x_range == "ema")
    running_ = declare_row_ranges(build, spec.name + ".x_range", {grid.tiles()});
  if (!parameters.learns_range()) return;
  learned_ = build.arena.declare({spec.name + ".input_range", {grid.tiles()}, Init::ones()});
  batches_ = build.buffers.declare(spec.name + ".input_batches", at::zeros({1}, at::kFloat));
}

void InputRange::initialize() {
  if (learned_) arena_.value(learned_).fill_(kStart);
}

at::Tensor InputRange::of(const ForwardContext& context, const at::Tensor& x,
                          const TileGrid& grid) {
  const at::NoGradGuard no_grad;
  if (running_) return running(context, x, grid);
  if (learned_) return learned(context, x, grid);
  return grid.largest_inputs(x);
}

at::Tensor InputRange::running(const ForwardContext& context, const at::Tensor& x,
                               const TileGrid& grid) {
  const at::Tensor largest = grid.largest_inputs(x).amax(0).to(at::kFloat);
  const at::Tensor seen = at::stack({largest.neg(), largest}, -1);
  const at::Tensor ends = set_or_seen(running_->tensor, seen);
  if (context.training) move_ranges_(running_->tensor, seen, parameters_.x_smooth);
  return at::maximum(ends.select(-1, 0).neg(), ends.select(-1, 1)).to(x.scalar_type());
}

at::Tensor InputRange::learned(const ForwardContext& context, const at::Tensor& x,
                               const TileGrid& grid) {
  // With version counters of their own: autograd must not think that the arena's other parameters,
  // whose memory this is, were written.
  const at::Tensor master = arena_.value(learned_).variable_data();
  const at::Tensor leaf = arena_.leaf(learned_).variable_data();
  const bool sets_from_data =
      context.training && context.weights_changed && parameters_.x_init > 0 && !computes_again();
  if (sets_from_data) {
    std::vector<at::Tensor> deviations;
    for (int64_t t = 0; t < grid.tiles(); ++t)
      deviations.push_back(x.narrow(1, grid.first(t), grid.count(t)).std());
    // A frozen range is kept in the compute type, in which a mean of many would not be one.
    const at::ScalarType wide = master.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
    const at::Tensor seen = at::stack(deviations).mul_(kDeviations).to(wide);
    const at::Tensor count = batches_->tensor.to(wide), before = master.to(wide);
    const at::Tensor mean = before.mul(count).add_(seen).div_(count.add(1));
    const at::Tensor sets =
        count.lt(static_cast<double>(parameters_.x_init)).logical_and(seen.gt(0));
    master.copy_(at::where(sets, mean, before));
    if (leaf.data_ptr() != master.data_ptr()) leaf.copy_(master);
    batches_->tensor.add_(sets.any().to(at::kFloat));
  }
  return leaf.abs().to(x.scalar_type());
}

}  // namespace refract
