// What an optimizer step does to the weights, from gradients and moments that lie flat as the arena
// does.
#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

#include "model/parameters.h"
#include "train/run_config.h"
#include "train/together/slices.h"

namespace refract {

// Moments and everything else the optimizer keeps; flat, as the arena is. sgd keeps its momentum
// buffer in exp_avg and has no second one; of the matrices that muon moves, exp_avg_sq stays 0.
// With train.shard a process keeps its slices alone, first that of the model's own parameters, then
// that of the guides.
struct OptimizerState {
  at::Tensor exp_avg, exp_avg_sq;  // fp32 [trainable_size]
};

// Matrices of one shape that follow each other in the arena, [count, rows, columns] from `begin`
// on.
struct MatrixStack {
  int64_t begin = 0, count = 0, rows = 0, columns = 0;
  Range range() const { return {begin, begin + count * rows * columns}; }
};

// The trained matrices of hidden layers that lie in `range`, in the arena's order: all but the
// tables of embeddings and head. A block matrix is a stack of its blocks. Throws std::logic_error
// where the range cuts a matrix.
std::vector<MatrixStack> hidden_matrices(const ParameterArena& arena, const Range& range);

struct UpdateInputs {
  Range range;       // of the arena
  int64_t kept = 0;  // where the moments of the range begin in `state`
  at::Tensor grads;  // flat, as the arena is
  OptimizerState state;
  at::Tensor hyper, control;  // ops/dense/optimizer/optimizer.h
};

// Moves the weights of the range by optimizer.name, and zeroes their gradients.
void update_weights(ParameterArena& arena, const RunConfig::Optimizer& optimizer,
                    const UpdateInputs& in);

}  // namespace refract
