// Adds up a step's gradients and losses over groups of sequences and over processes.
//
// With train.reduction_groups the order is that of a binary tree over the groups, whoever computed
// them: ((g0 + g1) + (g2 + g3)) + ... A process has whole subtrees. Above them slice j of every
// process's sum goes to process j, which adds them in the tree's order, and all gather the slices:
// the bytes of an all-reduce, and the same bits for any number of processes.
#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

#include "distributed/world.h"
#include "train/together/batch_share.h"

namespace refract {

class GradientSum {
 public:
  // For flat fp32 gradients of `size` elements on the device, a multiple of 64.
  GradientSum(const BatchShare& share, World& world, at::Device device, int64_t size);

  // After the last micro-batch of this process's `group`: grads [n] holds the group's sum. Leaves
  // zeros there, or after the last group the sum over all of them.
  void add_group(int64_t group, const at::Tensor& grads);
  // That sum becomes the one over all processes.
  void add_processes(const at::Tensor& grads);
  // losses [groups] of this process -> the sum over all processes, a scalar.
  at::Tensor add_losses(const at::Tensor& losses);
  // From here on gradients are no longer than `size`.
  void shrink(int64_t size);

 private:
  BatchShare share_;
  World& world_;
  std::vector<at::Tensor> levels_;  // [size]: sums of 2^level groups that wait for their neighbour
  at::Tensor received_;             // [size]
};

}  // namespace refract
