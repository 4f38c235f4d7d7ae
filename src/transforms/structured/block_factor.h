// One factor of a structured layer: a block diagonal weight [B, m, k] (B = 1: an ordinary matrix),
// whose blocks are plain matrices or layers of another kind.
#pragma once
#include <memory>
#include <string>
#include <vector>

#include "model/slots.h"
#include "ops/structured/block_linear.h"
#include "transforms/kind.h"

namespace refract {

// B blocks [m, k].
struct FactorShape {
  int64_t blocks = 1, out = 0, in = 0;  // out and in are m and k of one block
};

class BlockFactor {
 public:
  // Without `over` one parameter "<name>.weight", [m, k] or [B, m, k]. With it one layer of that
  // kind per block, "<name>" or "<name>.<block>".
  BlockFactor(Build build, const LinearSpec& spec, FactorShape shape, const Kind* over);

  // x [..., B k] -> [..., B m]. The layout chooses which features each block reads and writes.
  at::Tensor forward(const ForwardContext& context, const at::Tensor& x, BlockLayout layout);

  const FactorShape& shape() const { return shape_; }
  // Whether the blocks are plain matrices.
  bool plain() const { return weight_ != nullptr; }
  // The leaf of a plain factor, [m, k] or [B, m, k].
  at::Tensor leaf() { return arena_.leaf(weight_); }
  // All blocks [B, m, k], from master values; undefined where a layer has no dense weight.
  at::Tensor value() const;
  // Whether they are what forward() multiplies by (LinearLayer::computes_merged).
  bool computes_value() const;
  // Of all blocks, per token.
  int64_t multiplications() const;
  // Sets the blocks from [B, m, k]; layers of another kind take them over.
  void set(const at::Tensor& blocks);
  // LinearLayer::initialize() of the layers of another kind; plain blocks are the arena's.
  void initialize(uint64_t seed);

 private:
  FactorShape shape_;
  ParameterArena& arena_;
  Parameter* weight_ = nullptr;                       // plain
  std::vector<std::unique_ptr<LinearLayer>> layers_;  // otherwise, one per block
};

}  // namespace refract
