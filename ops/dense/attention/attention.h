// Causal scaled dot-product attention of short sequences, read from the joint output of the q, k, v
// projections as it lies there. Its gradient is that joint output's, so nothing is split,
// transposed, copied or concatenated. scaled_dot_product_attention is made for hundreds of tokens
// and pays more in set-up than in arithmetic below that.
#pragma once
#include <ATen/core/Tensor.h>

#include "ops/common/op.h"

namespace refract {

// qkv [B, T, (H + 2 K) D] of any floating type: H query heads, K key heads, K value heads of width
// D side by side; K divides H, and query head h is served by key/value head h / (H / K).
// Returns [B, T, H * D]: softmax over j <= i of scale * q_i . k_j, times v, in fp32 (float64 for
// float64).
struct CausalAttentionInputs {
  const at::Tensor& qkv;
  int64_t num_heads, num_kv_heads;
  double scale;
};
inline constexpr Op<"causal_attention", at::Tensor(CausalAttentionInputs)> causal_attention;

// grad [B, T, H D] -> the gradient of qkv. The probabilities are made again.
struct CausalAttentionBackwardInputs {
  const at::Tensor &grad, &qkv;
  int64_t num_heads, num_kv_heads;
  double scale;
};
inline constexpr Op<"causal_attention_backward", at::Tensor(CausalAttentionBackwardInputs)>
    causal_attention_backward;

// The longest sequence for which the CPU kernel beats scaled_dot_product_attention for certain.
inline constexpr int64_t kShortSequence = 128;

// What the CUDA kernel is made for; anything else there takes the composite form, which is slow.
inline bool has_cuda_attention(int64_t length, int64_t head_dim) {
  const bool width = head_dim == 8 || head_dim == 16 || head_dim == 32 || head_dim == 64;
  return width && length <= 64;
}

namespace composite {
at::Tensor causal_attention(const CausalAttentionInputs& in);
at::Tensor causal_attention_backward(const CausalAttentionBackwardInputs& in);
}  // namespace composite

namespace causal_attention_op {
void check(const at::Tensor& qkv, int64_t num_heads, int64_t num_kv_heads);
void check_backward(const CausalAttentionBackwardInputs& in);
}  // namespace causal_attention_op

}  // namespace refract
