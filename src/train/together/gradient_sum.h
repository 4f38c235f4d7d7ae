// Adds up a step's gradients and losses over groups of sequences and over processes.
//
// With train.reduction_groups the order is that of a binary tree over the groups, whoever computed
// them: ((g0 + g1) + (g2 + g3)) + ... A process has whole subtrees. Above them slice j of every
// process's sum goes to process j, which adds them in the tree's order, and all gather the slices:
// the bytes of an all-reduce, and the same bits for any number of processes. With train.shard each
// process needs the sum of its own slice alone, and the gathering is that of the new weights.
#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

#include "distributed/world.h"
#include "train/together/batch_share.h"
#include "train/together/slices.h"

namespace refract {

// Elements of each of the two buffers through which processes exchange gradients.
inline constexpr int64_t kExchangeBuffer = int64_t{1} << 24;

class GradientSum {
 public:
  // For flat fp32 gradients of `size` elements on the device. sharded: slices stay where they are
  // added up. What processes exchange goes through two buffers of `buffer` elements.
  GradientSum(const BatchShare& share, World& world, at::Device device, int64_t size, bool sharded,
              int64_t buffer = kExchangeBuffer);

  // After the last micro-batch of this process's `group`: grads [n] holds the group's sum. Leaves
  // zeros there, or after the last group the sum over all of them.
  // `begin`: where grads begin among all that wait for their neighbour, where they are a part.
  void add_group(int64_t group, const at::Tensor& grads, int64_t begin = 0);
  // That sum becomes the one over all processes; sharded: this process's slice of it, and the rest
  // holds anything.
  void add_processes(const at::Tensor& grads);
  // The norm of what add_processes() left in several flat parts. In the same bits for any number of
  // processes where the gradients are.
  at::Tensor norm(const std::vector<at::Tensor>& parts);
  // losses [groups] of this process -> the sum over all processes, a scalar.
  at::Tensor add_losses(const at::Tensor& losses);
  // From here on gradients are no longer than `size`.
  void shrink(int64_t size);

  // How flat [n] is divided.
  Slices slices(int64_t n) const { return {n, units(), world_.size()}; }
  bool sharded() const { return sharded_; }
  // flat [n], of which this process's slice is as it should be: all others' come to it.
  void gather(const at::Tensor& flat);
  // own: this process's slice of n elements on the device -> all of them on the host, undefined in
  // processes other than 0.
  at::Tensor gathered_on_host(const at::Tensor& own, int64_t n);

 private:
  int64_t units() const {
    return share_.fixed_groups ? share_.groups * world_.size() : world_.size();
  }
  // The elements of a slice that go through the buffers at once.
  int64_t piece() const { return sent_.numel() / world_.size(); }

  BatchShare share_;
  World& world_;
  bool sharded_;
  std::vector<at::Tensor> levels_;  // [size]: sums of 2^level groups that wait for their neighbour
  at::Tensor sent_, received_;      // [buffer]
};

}  // namespace refract
