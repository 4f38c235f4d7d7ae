// fp32 operands for bfloat16 tensor cores: a number is the sum of two bfloat16 numbers to 2^-16 of
// it, and a product of two such sums needs three products.
#pragma once
#include <ATen/core/Tensor.h>

#include <tuple>

#include "ops/common/op.h"
#include "ops/dense/attention/attention.h"

namespace refract {

// x [..., K] fp32 -> [..., 3K] bfloat16: [high, high, low] with high = bf16(x) and low =
// bf16(x - high). Not differentiable.
struct SplitInputs {
  const at::Tensor& x;
};
inline constexpr Op<"split_bfloat16", at::Tensor(SplitInputs)> split_bfloat16;

// split_bfloat16(gelu(x)), GELU in the tanh form or exact.
struct SplitGeluInputs {
  const at::Tensor& x;
  bool tanh_form;
};
inline constexpr Op<"split_gelu_bfloat16", at::Tensor(SplitGeluInputs)> split_gelu_bfloat16;

// w [..., K] fp32 -> [..., 3K]: [high, low, high], so that split_bfloat16(x) . this = x . w without
// the product of the low parts. Relative to sum |x_k w_k| the error is at most 3 * 2^-16, against
// 2 * 2^-8 of bfloat16 and 2 * 2^-11 of TF32.
at::Tensor split_weight_bfloat16(const at::Tensor& w);

// The normalization of norm() and add_norm() for many models, split. x and residual [A, N, C] fp32;
// weight and bias [A, 1, C] or none: 1 and 0. Returns the split rows and sum = x + residual, empty
// ([0]) without a residual. Not differentiable.
struct SplitNormInputs {
  const at::Tensor& x;
  const MaybeTensor &residual, &weight, &bias;
  double eps;
  bool rms;
};
using SplitNormResult = std::tuple<at::Tensor, at::Tensor>;
inline constexpr Op<"split_norm_bfloat16", SplitNormResult(SplitNormInputs)> split_norm_bfloat16;

// split_bfloat16(causal_attention(...)) of an fp32 qkv, in CUDA from split operands too: a score is
// within 3 * 2^-16 of scale * sum |q_k k_k|, and what is mixed by given probabilities within
// 3 * 2^-16 of the largest |v|. Not differentiable.
inline constexpr Op<"split_causal_attention", at::Tensor(CausalAttentionInputs)>
    split_causal_attention;

// What its CUDA kernel is made for; shorter sequences fill no tile of it.
inline bool has_cuda_split_attention(int64_t length, int64_t head_dim) {
  return length >= 32 && (head_dim == 32 || head_dim == 64);
}

namespace split_op {
// Raises unless x, the tensor `name` of `op`, is fp32 with a dimension or more.
void check(const char* op, const char* name, const at::Tensor& x);
}  // namespace split_op

namespace split_norm {
// Raises unless the inputs fit together.
void check(const SplitNormInputs& in);
}  // namespace split_norm

namespace composite {
at::Tensor split_bfloat16(const SplitInputs& in);
at::Tensor split_gelu_bfloat16(const SplitGeluInputs& in);
SplitNormResult split_norm_bfloat16(const SplitNormInputs& in);
at::Tensor split_causal_attention(const CausalAttentionInputs& in);
}  // namespace composite

}  // namespace refract
