#include "train/together/gradient_sum.h"

#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/zeros.h>

#include <algorithm>

#include "ops/dense/optimizer/optimizer.h"

namespace refract {
namespace {

// x [2^k] -> a scalar: neighbours are added, then the sums of neighbours, and so on.
at::Tensor tree_sum(at::Tensor x) {
  while (x.numel() > 1) {
    const at::Tensor pairs = x.view({x.numel() / 2, 2});
    x = pairs.select(1, 0).add(pairs.select(1, 1));
  }
  return x.select(0, 0);
}

at::Tensor part(const at::Tensor& flat, const Range& range) {
  return flat.narrow(0, range.begin, range.size());
}

}  // namespace

GradientSum::GradientSum(const BatchShare& share, World& world, at::Device device, int64_t size,
                         bool sharded, int64_t buffer)
    : share_(share), world_(world), sharded_(sharded && world.size() > 1) {
  const auto options = at::TensorOptions().device(device).dtype(at::kFloat);
  for (int64_t groups = 1; groups < share_.groups; groups *= 2)
    levels_.push_back(at::empty({size}, options));
  if (world_.size() == 1 || !(share_.fixed_groups || sharded_)) return;
  const int64_t row = std::min(std::max<int64_t>(1, buffer / world_.size()), slices(size).width());
  for (at::Tensor* side : {&sent_, &received_}) *side = at::zeros({row * world_.size()}, options);
}

void GradientSum::add_group(int64_t group, const at::Tensor& grads, int64_t begin) {
  const auto waiting = [&](size_t level) { return levels_[level].narrow(0, begin, grads.numel()); };
  size_t level = 0;
  // A group that ends a subtree closes all that end with it.
  for (; (group >> level) & 1; ++level) grads.add_(waiting(level));
  if (group + 1 == share_.groups) return;
  waiting(level).copy_(grads);
  grads.zero_();
}

void GradientSum::add_processes(const at::Tensor& grads) {
  const int64_t processes = world_.size();
  if (processes == 1) return;
  if (!share_.fixed_groups && !sharded_) {
    world_.all_reduce_(grads, Reduction::kSum);
    return;
  }
  const Slices all = slices(grads.numel());
  for (int64_t at = 0; at < all.width(); at += piece()) {
    const int64_t length = std::min(piece(), all.width() - at);
    const at::Tensor out = sent_.narrow(0, 0, processes * length).view({processes, length});
    const at::Tensor in = received_.narrow(0, 0, processes * length).view({processes, length});
    for (int64_t j = 0; j < processes; ++j) {
      const Range range = all.piece(j, at, length);
      out.select(0, j).narrow(0, 0, range.size()).copy_(part(grads, range));
    }
    world_.all_to_all(out, in);
    for (int64_t width = 1; width < processes; width *= 2) {
      for (int64_t i = 0; i + width < processes; i += 2 * width)
        in.select(0, i).add_(in.select(0, i + width));
    }
    if (!sharded_) world_.all_gather(in.select(0, 0), out);
    for (int64_t j = 0; j < processes; ++j) {
      if (sharded_ && j != world_.rank()) continue;
      const Range range = all.piece(j, at, length);
      const at::Tensor sum = sharded_ ? in.select(0, 0) : out.select(0, j);
      part(grads, range).copy_(sum.narrow(0, 0, range.size()));
    }
  }
}

at::Tensor GradientSum::norm(const std::vector<at::Tensor>& parts) {
  std::vector<at::Tensor> squares;
  const int64_t own = slices(0).units_per_process();
  for (int64_t i = 0; i < own; ++i) {
    std::vector<at::Tensor> of_unit;
    for (const at::Tensor& flat : parts) {
      const Range unit = slices(flat.numel()).unit(world_.rank() * own + i);
      if (unit.size() > 0) of_unit.push_back(global_norm(part(flat, unit)).square());
    }
    squares.push_back(of_unit.empty() ? at::zeros({}, parts.front().options().dtype(at::kFloat))
                                      : at::stack(of_unit).sum());
  }
  const at::Tensor mine = at::stack(squares);
  const at::Tensor all = at::empty({world_.size(), own}, mine.options());
  world_.all_gather(mine, all);
  return all.view({-1}).sum().sqrt();
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
}

void GradientSum::gather(const at::Tensor& flat) {
  const int64_t processes = world_.size();
  const Slices all = slices(flat.numel());
  for (int64_t at = 0; at < all.width(); at += piece()) {
    const int64_t length = std::min(piece(), all.width() - at);
    const at::Tensor in = received_.narrow(0, 0, processes * length).view({processes, length});
    const Range own = all.piece(world_.rank(), at, length);
    in.select(0, world_.rank()).narrow(0, 0, own.size()).copy_(part(flat, own));
    world_.all_gather(in.select(0, world_.rank()), in);
    for (int64_t j = 0; j < processes; ++j) {
      if (j == world_.rank()) continue;
      const Range range = all.piece(j, at, length);
      part(flat, range).copy_(in.select(0, j).narrow(0, 0, range.size()));
    }
  }
}

at::Tensor GradientSum::gathered_on_host(const at::Tensor& own, int64_t n) {
  const int64_t processes = world_.size();
  const Slices all = slices(n);
  const int64_t first = all.of(world_.rank()).begin;
  at::Tensor host;
  if (world_.leader()) host = at::empty({n}, at::TensorOptions().dtype(own.scalar_type()));
  for (int64_t at = 0; at < all.width(); at += piece()) {
    const int64_t length = std::min(piece(), all.width() - at);
    const at::Tensor in = received_.narrow(0, 0, processes * length).view({processes, length});
    const Range mine = all.piece(world_.rank(), at, length);
    in.select(0, world_.rank())
        .narrow(0, 0, mine.size())
        .copy_(own.narrow(0, mine.begin - first, mine.size()));
    world_.all_gather(in.select(0, world_.rank()), in);
    for (int64_t j = 0; host.defined() && j < processes; ++j) {
      const Range range = all.piece(j, at, length);
      part(host, range).copy_(in.select(0, j).narrow(0, 0, range.size()));
    }
  }
  return host;
}

}  // namespace refract
