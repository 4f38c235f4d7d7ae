#include "train/update/sliced_update.h"

#include <ATen/ops/cat.h>
#include <ATen/ops/lerp.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/where.h>
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <vector>

#include "model/arena_alignment.h"

namespace refract {
namespace {

// The first half of muon_(), for numbers that need not be a whole matrix: the buffer moves, and the
// step that is to be made orthogonal takes the gradients' place.
void take_momentum(const RunConfig::Optimizer& o, const at::Tensor& grads, const at::Tensor& buffer,
                   const at::Tensor& control) {
  const at::Tensor gradient = grads.mul(control.select(0, 0));
  const at::Tensor moved = at::lerp(buffer, gradient, 1 - o.momentum);
  grads.copy_(o.nesterov ? at::lerp(gradient, moved, o.momentum) : moved);
  buffer.copy_(at::where(control.select(0, 1).eq(0), moved, buffer));
}

// The second half, for all matrices of a stack: without momentum their step is what in.grads holds.
void take_steps(ParameterArena& arena, RunConfig::Optimizer o, const UpdateInputs& in,
                const MatrixStack& stack) {
  o.momentum = 0;
  o.nesterov = false;
  const Range range = stack.range();
  const at::Tensor coefficient = at::ones({1}, in.control.options());  // it is in the step already
  OptimizerState unused;
  unused.exp_avg = at::zeros({range.size()}, in.grads.options());
  update_weights(arena, o,
                 {range, 0, in.grads, unused, in.hyper,
                  at::cat({coefficient, in.control.narrow(0, 1, in.control.numel() - 1)})});
}

// Padding behind it needs no step, and kernels want aligned pieces.
Range with_padding(const Range& range, int64_t limit) {
  const int64_t end = (range.end + kArenaAlignment - 1) / kArenaAlignment * kArenaAlignment;
  return {range.begin, std::max(range.end, std::min(end, limit))};
}

}  // namespace

void update_slice(ParameterArena& arena, const RunConfig::Optimizer& optimizer,
                  const UpdateInputs& in, const Range& part,
                  const std::function<void(const at::Tensor& flat)>& gather) {
  if (optimizer.name != "muon") return update_weights(arena, optimizer, in);
  const std::vector<MatrixStack> stacks = hidden_matrices(arena, part);
  std::vector<Range> whole;
  for (const MatrixStack& stack : stacks) {
    const Range range = stack.range();
    whole.push_back(with_padding(range, part.end));
    const int64_t begin = std::max(range.begin, in.range.begin),
                  size = std::min(range.end, in.range.end) - begin;
    if (size <= 0) continue;
    take_momentum(optimizer, in.grads.narrow(0, begin, size),
                  in.state.exp_avg.narrow(0, in.kept + begin - in.range.begin, size), in.control);
  }
  RunConfig::Optimizer elements = optimizer;  // what muon leaves to adamw
  elements.name = "adamw";
  for (const Range& rest : without(in.range, whole)) {
    update_weights(
        arena, elements,
        {rest, in.kept + rest.begin - in.range.begin, in.grads, in.state, in.hyper, in.control});
  }
  gather(in.grads.narrow(0, part.begin, part.size()));
  for (const MatrixStack& stack : stacks) take_steps(arena, optimizer, in, stack);
}

}  // namespace refract
