#include "train/together/gradient_sum.h"

#include <ATen/ops/empty.h>

namespace refract {
namespace {

// x [2^k] -> a scalar: neighbours are added, then the sums of neighbours, and so on.
at::Tensor tree_sum(at::Tensor x) {
  while (x.numel() > 1) {
    const at::Tensor pairs = x.view({x.numel() / 2, 2});
    x = pairs.select(1, 0).add(pairs.select(1, 1));
  }
  return x.view({});
}

}  // namespace

GradientSum::GradientSum(const BatchShare& share, World& world, at::Device device, int64_t size)
    : share_(share), world_(world) {
  const auto options = at::TensorOptions().device(device).dtype(at::kFloat);
  for (int64_t groups = 1; groups < share_.groups; groups *= 2)
    levels_.push_back(at::empty({size}, options));
  if (share_.fixed_groups && world_.size() > 1) received_ = at::empty({size}, options);
}

void GradientSum::add_group(int64_t group, const at::Tensor& grads) {
  size_t level = 0;
  // A group that ends a subtree closes all that end with it.
  for (; (group >> level) & 1; ++level) grads.add_(levels_[level].narrow(0, 0, grads.numel()));
  if (group + 1 == share_.groups) return;
  levels_[level].narrow(0, 0, grads.numel()).copy_(grads);
  grads.zero_();
}

void GradientSum::add_processes(const at::Tensor& grads) {
  if (world_.size() == 1) return;
  if (!share_.fixed_groups) {
    world_.all_reduce_(grads, Reduction::kSum);
    return;
  }
  const int64_t processes = world_.size();
  const auto rows = [&](const at::Tensor& flat) {
    return flat.narrow(0, 0, grads.numel()).view({processes, grads.numel() / processes});
  };
  const at::Tensor slices = rows(received_);
  world_.all_to_all(rows(grads), slices);
  for (int64_t width = 1; width < processes; width *= 2) {
    for (int64_t i = 0; i < processes; i += 2 * width)
      slices.select(0, i).add_(slices.select(0, i + width));
  }
  world_.all_gather(slices.select(0, 0), rows(grads));
}

at::Tensor GradientSum::add_losses(const at::Tensor& losses) {
  if (!share_.fixed_groups) {
    world_.all_reduce_(losses, Reduction::kSum);
    return losses.select(0, 0);
  }
  const at::Tensor all = at::empty({world_.size(), losses.numel()}, losses.options());
  world_.all_gather(losses, all);
  return tree_sum(all.view({-1}));
}

void GradientSum::shrink(int64_t size) {
  for (at::Tensor& level : levels_) level = at::empty({size}, level.options());
  if (received_.defined()) received_ = at::empty({size}, received_.options());
}

}  // namespace refract
