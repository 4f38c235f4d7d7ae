// Causal attention over a tree of prefixes: sequences that begin alike share the rows of what they
// have in common, so that each distinct prefix is computed once.
#pragma once
#include <ATen/core/Tensor.h>

#include "ops/common/op.h"

namespace refract {

// depths [N] int32 or int64 of the nodes of trees in preorder: a node's parent is the last node
// before it that is one less deep; one of depth 0 begins a tree. All are below `levels`, and no
// node is more than one deeper than the node before it. qkv [A, N, (H + 2 K) D] of any floating
// type, of A models on the same nodes: H query heads, K key heads, K value heads of width D side by
// side, as causal_attention() has them. Returns [A, N, H D]: softmax over a node's ancestors and
// itself of scale * q . k_j, times v, in fp32 (float64 for float64). Not differentiable.
//
// The CPU kernel raises on depths that are no preorder; elsewhere asking would stop the stream.
struct PrefixAttentionInputs {
  const at::Tensor &qkv, &depths;
  int64_t levels, num_heads, num_kv_heads;
  double scale;
};
inline constexpr Op<"prefix_attention", at::Tensor(PrefixAttentionInputs)> prefix_attention;

namespace composite {
at::Tensor prefix_attention(const PrefixAttentionInputs& in);
}  // namespace composite

namespace prefix_attention_op {
// Raises unless the inputs fit together.
void check(const PrefixAttentionInputs& in);
}  // namespace prefix_attention_op

}  // namespace refract
