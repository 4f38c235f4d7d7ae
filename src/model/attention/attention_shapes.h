// Attention without its numbers, for counting what a model keeps in memory.
#pragma once
#include <ATen/core/Tensor.h>

namespace refract {

// q [B, H, T, D] over k, v [B, K, S, D] of the meta device -> [B, H, T, D], which lies as [B, T, H,
// D]. Autograd keeps, and the backward pass uses, what FlashAttention 2 does (Dao 2023, arXiv
// 2307.08691): operands, output and one fp32 number per query and head; then an fp32 sum for q's
// gradient, and where heads share keys a gradient of keys and values for each of them.
at::Tensor attention_shapes(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v);

}  // namespace refract
