#include "transforms/structured/block_factor.h"

#include <ATen/ops/cat.h>
#include <ATen/ops/stack.h>

#include <algorithm>

#include "core/error.h"
#include "ops/dense/linear/linear.h"
#include "transforms/inner_kind.h"

namespace refract {

BlockFactor::BlockFactor(Build build, const LinearSpec& spec, FactorShape shape, const Kind* over)
    : shape_(shape), arena_(build.arena) {
  if (!over) {
    std::vector<int64_t> sizes = {shape.out, shape.in};
    if (shape.blocks > 1) sizes.insert(sizes.begin(), shape.blocks);
    weight_ = arena_.declare({spec.name + ".weight", sizes, Init::normal(spec.init_std)});
    return;
  }
  for (int64_t b = 0; b < shape.blocks; ++b) {
    LinearSpec block = spec;
    if (shape.blocks > 1) block.name = fmt::format("{}.{}", spec.name, b);
    block.in_features = shape.in;
    block.out_features = shape.out;
    over->check_shape(block);
    layers_.push_back(over->linear(build, block));
  }
}

at::Tensor BlockFactor::forward(const ForwardContext& context, const at::Tensor& x,
                                BlockLayout layout) {
  if (plain()) {
    return shape_.blocks == 1 ? fused_linear(x, leaf()) : block_linear(x, leaf(), layout);
  }
  if (shape_.blocks == 1) return layers_[0]->forward(context, x);
  const int64_t B = shape_.blocks, last = x.dim() - 1;
  std::vector<at::Tensor> outputs;
  for (int64_t b = 0; b < B; ++b) {
    const at::Tensor part = layout.interleaved_in ? x.unflatten(last, {shape_.in, B}).select(-1, b)
                                                  : x.narrow(last, b * shape_.in, shape_.in);
    outputs.push_back(layers_[static_cast<size_t>(b)]->forward(context, part));
  }
  return layout.interleaved_out ? at::stack(outputs, -1).flatten(-2) : at::cat(outputs, -1);
}

at::Tensor BlockFactor::value() const {
  if (plain()) {
    // One factor may be frozen, and so kept in the compute type, and the other trained.
    const at::Tensor value = arena_.value(weight_).to(arena_.master().scalar_type());
    return shape_.blocks == 1 ? value.unsqueeze(0) : value;
  }
  std::vector<at::Tensor> blocks;
  for (const auto& layer : layers_) {
    blocks.push_back(layer->merged());
    if (!blocks.back().defined()) return {};
  }
  return at::stack(blocks);
}

bool BlockFactor::computes_value() const {
  return std::all_of(layers_.begin(), layers_.end(),
                     [](const auto& layer) { return layer->computes_merged(); });
}

int64_t BlockFactor::multiplications() const {
  if (plain()) return shape_.blocks * shape_.out * shape_.in;
  int64_t sum = 0;
  for (const auto& layer : layers_) sum += multiplications_of(*layer, shape_.in, shape_.out);
  return sum;
}

void BlockFactor::set(const at::Tensor& blocks) {
  if (plain()) {
    const at::Tensor value = arena_.value(weight_);
    value.copy_(blocks.reshape(value.sizes()));
    return;
  }
  for (size_t b = 0; b < layers_.size(); ++b) {
    layers_[b]->take_over(blocks.select(0, static_cast<int64_t>(b)));
  }
}

void BlockFactor::initialize(uint64_t seed) {
  for (const auto& layer : layers_) layer->initialize(seed);
}

}  // namespace refract
