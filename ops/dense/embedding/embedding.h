// Token and position embeddings in one pass, with gradients that are the same in every run.
#pragma once
#include <ATen/core/Tensor.h>

#include "ops/common/op.h"

namespace refract {

// out[b, t] = wte[tokens[b, t]] + wpe[position_offset + t], summed in fp32: [B, T, C].
// tokens [B, T] int64 or int32; wte [Vp, C]; wpe [Tmax, C], or none for models that rotate instead.
// A token outside [0, Vp) is an error on the CPU and gives NaN on CUDA, where asking would stop the
// stream. position_offset + T <= Tmax.
struct EmbedInputs {
  const at::Tensor &tokens, &wte;
  const MaybeTensor& wpe = kNoTensor;
  int64_t position_offset = 0;
};
inline constexpr Op<"embed", at::Tensor(EmbedInputs)> embed;

// The gradient by wte [rows, C] for grad [B, T, C]: for each token the sum of its positions'
// gradients, in fp32 (float64) and in the order of the positions' tiles, rounded once.
struct EmbedBackwardInputs {
  const at::Tensor &grad, &tokens;
  int64_t rows;
};
inline constexpr Op<"embed_backward", at::Tensor(EmbedBackwardInputs)> embed_backward;

// The gradient by wpe [positions, C]: the sum over the batch at rows position_offset + t.
struct EmbedPositionsBackwardInputs {
  const at::Tensor& grad;
  int64_t positions, position_offset;
};
inline constexpr Op<"embed_positions_backward", at::Tensor(EmbedPositionsBackwardInputs)>
    embed_positions_backward;

namespace composite {
at::Tensor embed(const EmbedInputs& in);
at::Tensor embed_backward(const EmbedBackwardInputs& in);
at::Tensor embed_positions_backward(const EmbedPositionsBackwardInputs& in);
}  // namespace composite

namespace embedding {
void check(const EmbedInputs& in);
void check_backward(const EmbedBackwardInputs& in);
void check_positions(const EmbedPositionsBackwardInputs& in);
}  // namespace embedding
}  // namespace refract
