// Attention of one new token per sequence over a cache in which every sequence has a length of its
// own (Shazeer, "Fast Transformer Decoding", arXiv 1911.02150, with grouped key heads).
#pragma once
#include <ATen/core/Tensor.h>

#include "ops/common/op.h"

namespace refract {

// q [B, H, D]; keys, values [B, K, S, D] with H a multiple of K, query head h reading key head
// h K / H; lengths int64 [B] on their device: sequence b attends to the places 0 to lengths[b],
// which must be below S. Scores times `scale`, softmax in fp32 (float64). Returns [B, H, D].
// Inference alone: there is no gradient.
struct DecodeAttentionInputs {
  const at::Tensor &q, &keys, &values, &lengths;
  double scale;
};
inline constexpr Op<"decode_attention", at::Tensor(DecodeAttentionInputs)> decode_attention;

namespace composite {
at::Tensor decode_attention(const DecodeAttentionInputs& in);
}  // namespace composite

namespace decode_attention_op {
void check(const DecodeAttentionInputs& in);
}  // namespace decode_attention_op

}  // namespace refract
