// fp32 operands for bfloat16 tensor cores: a number is the sum of two bfloat16 numbers to 2^-16 of
// it, and a product of two such sums needs three products.
#pragma once
#include <ATen/core/Tensor.h>

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

}  // namespace refract
