#include "train/update/weight_update.h"

#include <algorithm>
#include <stdexcept>

#include "model/arena_alignment.h"
#include "ops/common/op.h"
#include "ops/dense/optimizer/muon.h"
#include "ops/dense/optimizer/optimizer.h"
#include "ops/dense/optimizer/sgd.h"

namespace refract {
namespace {

AdamW adamw_settings(const RunConfig::Optimizer& o, int64_t n_decay) {
  AdamW settings;
  settings.beta1 = o.betas[0];
  settings.beta2 = o.betas[1];
  settings.eps = o.eps;
  settings.weight_decay = o.name == "adam" ? 0 : o.weight_decay;
  settings.n_decay = n_decay;
  settings.zero_grads = true;
  return settings;
}

Sgd sgd_settings(const RunConfig::Optimizer& o, int64_t n_decay) {
  Sgd settings;
  settings.momentum = o.momentum;
  settings.weight_decay = o.weight_decay;
  settings.n_decay = n_decay;
  settings.nesterov = o.nesterov;
  settings.zero_grads = true;
  return settings;
}

// On a CPU products in bf16 take longer than those in fp32.
Muon muon_settings(const RunConfig::Optimizer& o, bool cuda) {
  Muon settings;
  settings.momentum = o.momentum;
  settings.weight_decay = o.weight_decay;
  settings.nesterov = o.nesterov;
  settings.half = cuda;
  settings.zero_grads = true;
  return settings;
}

// The views of a range that an op takes.
struct Views {
  at::Tensor master;
  MaybeTensor compute;
  at::Tensor grads, exp_avg, exp_avg_sq;
};

Views views_of(ParameterArena& arena, const UpdateInputs& in, const Range& range,
               at::IntArrayRef shape) {
  const auto of = [&](const at::Tensor& flat) {
    return flat.narrow(0, range.begin, range.size()).view(shape);
  };
  const auto kept = [&](const at::Tensor& flat) {
    if (!flat.defined()) return flat;
    return flat.narrow(0, in.kept + range.begin - in.range.begin, range.size()).view(shape);
  };
  const bool same = arena.compute().is_same(arena.master());
  return {of(arena.master()), same ? MaybeTensor() : MaybeTensor(of(arena.compute())), of(in.grads),
          kept(in.state.exp_avg), kept(in.state.exp_avg_sq)};
}

// One rule for each element, in a part of the range.
void update_elements(ParameterArena& arena, const RunConfig::Optimizer& o, const UpdateInputs& in,
                     const Range& range) {
  if (range.size() == 0) return;  // more processes than there are weights, or no gap
  const bool all = o.decay == "all" || range.begin >= arena.core_size();  // guides are matrices
  const int64_t n_decay =
      all ? range.size() : std::clamp<int64_t>(arena.matrix_size() - range.begin, 0, range.size());
  const Views v = views_of(arena, in, range, {range.size()});
  if (o.name == "sgd") {
    sgd_(v.master, v.compute, v.grads, v.exp_avg, in.hyper, in.control, sgd_settings(o, n_decay));
  } else {
    adamw_(v.master, v.compute, v.grads, v.exp_avg, v.exp_avg_sq, in.hyper, in.control,
           adamw_settings(o, n_decay));
  }
}

// Where the next parameter begins: kernels want aligned pieces, and padding needs no step.
int64_t after(const MatrixStack& stack, int64_t limit) {
  const int64_t end = (stack.range().end + kArenaAlignment - 1) / kArenaAlignment * kArenaAlignment;
  return std::min(end, limit);
}

bool follows(const MatrixStack& stack, const MatrixStack& next) {
  return stack.range().end == next.begin && stack.rows == next.rows &&
         stack.columns == next.columns;
}

}  // namespace

std::vector<MatrixStack> hidden_matrices(const ParameterArena& arena, const Range& range) {
  std::vector<const Parameter*> inside;
  for (const auto* all : {&arena.parameters(), &arena.guides()}) {
    for (const Parameter& parameter : *all) {
      const bool overlaps =
          parameter.offset < range.end && parameter.offset + parameter.stored_numel() > range.begin;
      if (parameter.trainable && !parameter.table && parameter.shape.size() >= 2 && overlaps)
        inside.push_back(&parameter);
    }
  }
  std::sort(inside.begin(), inside.end(),
            [](const Parameter* a, const Parameter* b) { return a->offset < b->offset; });
  std::vector<MatrixStack> stacks;
  for (const Parameter* parameter : inside) {
    const std::vector<int64_t>& shape = parameter->shape;
    MatrixStack stack{parameter->offset, 1, shape[shape.size() - 2], shape.back()};
    if (shape.size() == 2) stack.rows = parameter->padded_rows;
    if (stack.rows * stack.columns == 0) continue;
    stack.count = parameter->stored_numel() / (stack.rows * stack.columns);
    if (stack.begin < range.begin || stack.range().end > range.end)
      throw std::logic_error("an optimizer's range cuts the matrix '" + parameter->name + "'");
    if (!stacks.empty() && follows(stacks.back(), stack)) {
      stacks.back().count += stack.count;
    } else {
      stacks.push_back(stack);
    }
  }
  return stacks;
}

void update_weights(ParameterArena& arena, const RunConfig::Optimizer& optimizer,
                    const UpdateInputs& in) {
  int64_t done = in.range.begin;
  if (optimizer.name == "muon") {
    for (const MatrixStack& stack : hidden_matrices(arena, in.range)) {
      update_elements(arena, optimizer, in, {std::min(done, stack.begin), stack.begin});
      const Views v = views_of(arena, in, stack.range(), {stack.count, stack.rows, stack.columns});
      muon_(v.master, v.compute, v.grads, v.exp_avg, in.hyper, in.control,
            muon_settings(optimizer, v.master.is_cuda()));
      done = after(stack, in.range.end);
    }
  }
  update_elements(arena, optimizer, in, {done, in.range.end});
}

}  // namespace refract
