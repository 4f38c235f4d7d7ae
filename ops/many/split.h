// fp32 operands for bfloat16 tensor cores: a number is the sum of two bfloat16 numbers to 2^-16 of
// it, and a product of two such sums needs three products.
#pragma once
#include <ATen/core/Tensor.h>

#include <optional>
#include <tuple>

namespace refract {

// x [..., K] fp32 -> [..., 3K] bfloat16: [high, high, low] with high = bf16(x) and low =
// bf16(x - high). Not differentiable.
at::Tensor split_bfloat16(const at::Tensor& x);

// split_bfloat16(gelu(x)), GELU in the tanh form or exact.
at::Tensor split_gelu_bfloat16(const at::Tensor& x, bool tanh_form);

// w [..., K] fp32 -> [..., 3K]: [high, low, high], so that split_bfloat16(x) . this = x . w without
// the product of the low parts. Relative to sum |x_k w_k| the error is at most 3 * 2^-16, against
// 2 * 2^-8 of bfloat16 and 2 * 2^-11 of TF32.
at::Tensor split_weight_bfloat16(const at::Tensor& w);

// The normalization of norm() and add_norm() for many models, split. x and residual [A, N, C] fp32;
// weight and bias [A, 1, C] or none: 1 and 0. Returns the split rows and sum = x + residual, empty
// ([0]) without a residual. Not differentiable.
std::tuple<at::Tensor, at::Tensor> split_norm_bfloat16(const at::Tensor& x,
                                                       const std::optional<at::Tensor>& residual,
                                                       const std::optional<at::Tensor>& weight,
                                                       const std::optional<at::Tensor>& bias,
                                                       double eps, bool rms);

// split_bfloat16(causal_attention(...)) of an fp32 qkv, in CUDA from split operands too: a score is
// within 3 * 2^-16 of scale * sum |q_k k_k|, and what is mixed by given probabilities within
// 3 * 2^-16 of the largest |v|. Not differentiable.
at::Tensor split_causal_attention(const at::Tensor& qkv, int64_t num_heads, int64_t num_kv_heads,
                                  double scale);

// What its CUDA kernel is made for; shorter sequences fill no tile of it.
inline bool has_cuda_split_attention(int64_t length, int64_t head_dim) {
  return length >= 32 && (head_dim == 32 || head_dim == 64);
}

namespace split_op {
// Raises unless x, the tensor `name` of `op`, is fp32 with a dimension or more.
void check(const char* op, const char* name, const at::Tensor& x);
}  // namespace split_op

namespace split_norm {
// Raises unless the arguments fit together.
void check(const at::Tensor& x, const std::optional<at::Tensor>& residual,
           const std::optional<at::Tensor>& weight, const std::optional<at::Tensor>& bias);
}  // namespace split_norm

namespace composite {
std::tuple<at::Tensor, at::Tensor> split_norm_bfloat16(const at::Tensor& x,
                                                       const std::optional<at::Tensor>& residual,
                                                       const std::optional<at::Tensor>& weight,
                                                       const std::optional<at::Tensor>& bias,
                                                       double eps, bool rms);
at::Tensor split_causal_attention(const at::Tensor& qkv, int64_t num_heads, int64_t num_kv_heads,
                                  double scale);
}  // namespace composite

}  // namespace refract
