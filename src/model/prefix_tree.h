// A causal model's state at a position depends on the tokens of its window up to there, so windows
// that begin alike have the same states that far. A tree of windows holds each distinct prefix once
// and counts what followed it.
#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <span>
#include <vector>

namespace refract {

struct PrefixTree {
  // Nodes [N] in preorder, as ops/many/prefix_attention.h has them: the last token of the node's
  // prefix, and its position in the window.
  at::Tensor tokens, depths;
  // Pairs [P] of a node and a token that follows its prefix, and how often it does; nodes ascend.
  at::Tensor rows, targets, counts;
  int64_t levels = 0;  // all depths are below

  int64_t nodes() const { return tokens.numel(); }
};

// The trees of a stream that is cut as evaluate() cuts it: windows of `context` tokens, the token
// behind each being its last target, and a last, shorter one. All tensors are int64, on the CPU.
// Windows are sorted first, so that equal beginnings meet; a tree is closed when it has
// `most_nodes`, and the next one begins with the prefixes that it needs.
std::vector<PrefixTree> prefix_trees(std::span<const int32_t> stream, int64_t context,
                                     int64_t most_nodes);

// Nodes of all trees over predicted tokens: the work that is left.
double distinct_share(const std::vector<PrefixTree>& trees);

}  // namespace refract
