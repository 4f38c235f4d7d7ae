// Token and position embeddings in one pass, with gradients that are the same in every run.
#pragma once
#include <ATen/core/Tensor.h>

#include <optional>
#include <tuple>

namespace refract {

// out[b, t] = wte[tokens[b, t]] + wpe[position_offset + t], summed in fp32: [B, T, C].
// tokens [B, T] int64 or int32; wte [Vp, C]; wpe [Tmax, C], or none for models that rotate instead.
// A token outside [0, Vp) is an error on the CPU and gives NaN on CUDA, where asking would stop the
// stream. position_offset + T <= Tmax.
at::Tensor embed(const at::Tensor& tokens, const at::Tensor& wte,
                 const std::optional<at::Tensor>& wpe = std::nullopt, int64_t position_offset = 0);

// The gradient by wte [rows, C] for grad [B, T, C]: for each token the sum of its positions'
// gradients, in fp32 (float64) and in the order of the positions' tiles, rounded once.
at::Tensor embed_backward(const at::Tensor& grad, const at::Tensor& tokens, int64_t rows);

// The gradient by wpe [positions, C]: the sum over the batch at rows position_offset + t.
at::Tensor embed_positions_backward(const at::Tensor& grad, int64_t positions,
                                    int64_t position_offset);

namespace composite {
at::Tensor embed(const at::Tensor& tokens, const at::Tensor& wte,
                 const std::optional<at::Tensor>& wpe, int64_t position_offset);
at::Tensor embed_backward(const at::Tensor& grad, const at::Tensor& tokens, int64_t rows);
at::Tensor embed_positions_backward(const at::Tensor& grad, int64_t positions,
                                    int64_t position_offset);
}  // namespace composite

namespace embedding {
void check(const at::Tensor& tokens, const at::Tensor& wte, const std::optional<at::Tensor>& wpe,
           int64_t position_offset);
void check_backward(const at::Tensor& grad, const at::Tensor& tokens);
void check_positions(const at::Tensor& grad, int64_t positions, int64_t position_offset);
}  // namespace embedding
}  // namespace refract
