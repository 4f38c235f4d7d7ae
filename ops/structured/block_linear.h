// Products with a block diagonal weight, the factors of structured layers (Wei et al., NeurIPS
// 2024, arXiv 2406.16450). Strided batched products read and write the features where they lie:
// neither a regrouping of features nor a cut into blocks is ever copied, as long as the features
// that are regrouped are stored feature by feature (below).
#pragma once
#include <ATen/core/Tensor.h>

#include <array>
#include <tuple>

#include "ops/common/op.h"

namespace refract {

// Which features a block of weight [B, m, k] reads and writes. Plain: block b reads features
// b k ... b k + k - 1 and writes b m ... b m + m - 1. Interleaved: it reads b, b + B, b + 2 B, ...,
// and writes so.
//
// BlockShuffle is block_linear(block_linear(x, V, {}), U, {.interleaved_in = true,
// .interleaved_out = true}): reading the first product's features as a grid [r, B] and taking its
// columns is the shuffle, writing them so is its inverse.
struct BlockLayout {
  bool interleaved_in = false, interleaved_out = false;
  // The result is stored feature by feature: a view [n, B m] of memory [B m, n]. An interleaved
  // product needs its input so and writes its output so; where it is handed or asked for the usual
  // layout, one transposing pass is made.
  bool feature_major = false;
};
template <>
inline constexpr bool kListedByField<BlockLayout> = true;

// x [..., B k], weight [B, m, k] of x's type -> [..., B m].
struct BlockLinearInputs {
  const at::Tensor &x, &weight;
  const BlockLayout& layout;
};
inline constexpr Op<"block_linear", at::Tensor(BlockLinearInputs)> block_linear;

// (grad_x, grad_weight), undefined where `wanted` is false; grad_x lies as x does.
struct BlockLinearBackwardInputs {
  const at::Tensor &grad, &x, &weight;
  bool interleaved_in, interleaved_out;
  std::array<bool, 2> wanted;
};
using BlockLinearGradients = std::tuple<at::Tensor, at::Tensor>;
inline constexpr Op<"block_linear_backward", BlockLinearGradients(BlockLinearBackwardInputs)>
    block_linear_backward;

// x [..., F] stored feature by feature, as a product with feature_major leaves it.
bool is_feature_major(const at::Tensor& x);

namespace composite {
at::Tensor block_linear(const BlockLinearInputs& in);
BlockLinearGradients block_linear_backward(const BlockLinearBackwardInputs& in);
}  // namespace composite

namespace block_linear_op {
// Raise unless the weight fits x, and the gradient both.
void check(const char* op, const at::Tensor& x, const at::Tensor& weight);
void check_backward(const BlockLinearBackwardInputs& in);
}  // namespace block_linear_op

}  // namespace refract
