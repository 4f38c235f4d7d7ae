// Causal softmax attention whose two products are optical (Anderson et al., arXiv 2302.10360):
//   S = Q_noisy(Q(q) . Q_lut(k)^T)      P = softmax(scale S over the keys that a query sees)
//   y = Q_noisy(Q(P) . Q_lut(v))
// with the quantizers of ops/optical/quantize/quantization_math.h. It is the *unscaled* product
// that is quantized and whose range is learned; scaling it is digital. P's range is fixed to [0,
// 1]. Scores of keys that a query doesn't see enter no range.
//
// The gradient is straight-through at every quantizer. Each product's is the one with its
// unquantized operands, the softmax's is taken at the probabilities P that were computed (from
// quantized scores, before their own quantization):
//   dP = dy v^T     dS = P (dP - sum_j P dP)     dq = scale dS k    dk = scale dS^T q    dv = P^T
//   dy
//
// Noise. Query i of a call is token keys - queries + i of its sequence, so that decoding token by
// token draws what the whole sequence draws. A score's noise has 16 bits, xi = (n + 1/2) / 2^16 -
// 1/2, and a Philox block serves the eight scores that one thread holds of two neighbouring
// tensor-core tiles: token i and key j of sequence b and head h (of H) draw
//   block ((b H + h) 2^19 + floor(i / 2)) 2^19 + 4 floor(j / 16) + floor(j mod 8 / 2),
//   word 2 (i mod 2) + (j mod 2), its low half where j mod 16 < 8, else its high half
// of the first stream's noise_block(). The output's element n = ((b 2^20 + i) H + h) D + d draws
// word n mod 4 of block floor(n / 4) of the second stream, with the 24 bits of
// ops/optical/quantize/quantization_math.h. Sequences are counted in the global batch. At most 2^20
// tokens.
#pragma once
#include <ATen/core/Tensor.h>

#include <tuple>
#include <utility>

#include "ops/common/op.h"
#include "ops/optical/matmul/product.h"

namespace refract {

// streams: that of the scores, that of the output. lut_min is the floor of k and v.
struct OpticalAttentionSettings : OpticalSettings {
  OpticalAttentionSettings() = default;
  OpticalAttentionSettings(double scale_in, bool scaled, MaybeTensor numbers,
                           OpticalSettings optical)
      : OpticalSettings(std::move(optical)),
        scale(scale_in),
        scaled_score_range(scaled),
        call_noise(std::move(numbers)) {}

  double scale = 1;  // positive
  // As mase-triton does: the scores' range is learned from scaled scores, applied to unscaled ones.
  bool scaled_score_range = false;
  // As mase-triton's fine-tuning attention, whose seed advances: float [2] on the device, the
  // number that every score of this call gets, and every output. The composite form does it.
  MaybeTensor call_noise;
};
template <>
inline constexpr bool kListedByField<OpticalAttentionSettings> = true;
// What the schema lists, in its order, which is the constructor's.
inline auto fields(const OpticalAttentionSettings& s) {
  return std::tie(s.scale, s.scaled_score_range, s.call_noise,
                  static_cast<const OpticalSettings&>(s));
}

// q [B, T, H, D], k and v [B, S, K, D] of one type, S >= T, K divides H -> [B, T, H, D] contiguous.
// Query i sees the keys j <= S - T + i. ranges float [5, 2]: of q, k, scores, v and the output;
// with settings.train they move.
struct OpticalAttentionInputs {
  const at::Tensor &q, &k, &v, &ranges;
  const OpticalAttentionSettings& settings;
};
inline constexpr Op<"optical_attention", at::Tensor(OpticalAttentionInputs)> optical_attention;

// Below autograd. with_mean: a backward pass may follow.
struct OpticalAttentionForwardInputs {
  const at::Tensor &q, &k, &v, &ranges;
  bool with_mean;
  const OpticalAttentionSettings& settings;
};
struct OpticalAttentionResult {
  at::Tensor out;
  // [B, H, T], float or double: log2 P = score level * (log2(e) scale units per level) + normalizer
  at::Tensor normalizer;
  at::Tensor used;  // float [5, 2], the ranges that the call quantized with
  // sum_j P v before any quantization: filled only by the kernels whose backward pass reads it, [B,
  // T, H, D] where it was asked, else [0].
  at::Tensor mean;
};
inline constexpr Op<"optical_attention_forward",
                    OpticalAttentionResult(OpticalAttentionForwardInputs)>
    optical_attention_forward;

struct OpticalAttentionBackwardInputs {
  const at::Tensor &grad_out, &q, &k, &v, &out, &normalizer, &used, &mean;
  const OpticalAttentionSettings& settings;
};
struct OpticalAttentionGradients {
  at::Tensor q, k, v;  // contiguous
};
inline constexpr Op<"optical_attention_backward",
                    OpticalAttentionGradients(OpticalAttentionBackwardInputs)>
    optical_attention_backward;

namespace attention_op {

enum Role { kQuery, kKey, kScore, kValue, kOutput, kRoles };

// Raises unless the inputs fit together.
void check(const OpticalAttentionForwardInputs& in);
// Whether the kernels for compute capability 9.0 do this call, whose backward pass reads the mean.
bool has_hopper_shape(const at::Tensor& q, const OpticalAttentionSettings& settings);
// Memory of `mean`.
at::Tensor mean_like(const at::Tensor& q, bool with_mean);
// int64 [2] on `like`'s device: settings.clock, or step -1, sequence 0.
at::Tensor clock_of(const OpticalAttentionSettings& settings, const at::Tensor& like);

}  // namespace attention_op

namespace composite {

OpticalAttentionResult optical_attention_forward(const OpticalAttentionForwardInputs& in);
OpticalAttentionGradients optical_attention_backward(const OpticalAttentionBackwardInputs& in);
// xi of scores [B, H, T, S] and of outputs [B, T, H, D]; undefined without noise, a scalar where it
// is shared.
at::Tensor optical_attention_score_xi(const at::Tensor& q, const at::Tensor& k,
                                      const OpticalAttentionSettings& settings);
at::Tensor optical_attention_output_xi(const at::Tensor& q, const at::Tensor& k,
                                       const OpticalAttentionSettings& settings);

}  // namespace composite

}  // namespace refract
