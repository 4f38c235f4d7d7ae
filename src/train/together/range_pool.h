// Running ranges of a model that several processes, or fixed groups of sequences, train together.
//
// A layer moves its ranges in every training call by what it saw. Here every call of a step starts
// from the same ranges, and at the step's end each range becomes the widest of those that the calls
// left: the move by the minimum and maximum over all micro-batches of all processes, since a move
// rises with what was seen, in rounded arithmetic too. So a range moves once per step, and to the
// same bits for any number of processes. A range that a call left alone, as that of a weight is in
// all calls but the first of a step, says nothing.
#pragma once
#include <ATen/core/Tensor.h>

#include "distributed/world.h"
#include "model/parameters.h"
#include "train/run_config.h"

namespace refract {

// Fails (usage) where a rule asks for ranges that are quantiles: those of all calls together do not
// follow from those of each.
void refuse_quantile_ranges(const RunConfig& config);

class RangePool {
 public:
  // Puts the buffers side by side in memory; layers look them up in every call. Fails (usage) for a
  // buffer that is no list of ranges, float [..., 2].
  RangePool(BufferStore& buffers, World& world);

  // Whether every range is set; waits for the device.
  bool all_set() const;
  // Around a forward pass that sets the ranges that are not, and moves no other.
  void begin_setting();
  void end_setting();

  // Around a step, and after each of its training calls.
  void begin_step();
  void after_call();
  void end_step();

 private:
  World& world_;
  at::Tensor ranges_;  // [n, 2], what all buffers are views of
  at::Tensor start_;   // [n, 2], at the beginning of the step
  at::Tensor widest_;  // [2, n]: least lower ends, and greatest upper ends with their sign changed
};

}  // namespace refract
