// Optical attention with a range for each row, in plain tensor expressions: q, k, the scores and
// the output per token and head, the probabilities over [0, their row's maximum], v per channel of
// a head. ops/optical/attention/attention.h has the form with one range per tensor.
//
// Its ranges are the buffers "<name>.ranges" [5, 2] (of q, k, scores, v and output; unused where a
// row has its own) and, with q_w_per = "channel", "<name>.v_range" [K, D, 2] of v's channels: a
// range over the keys of the moment would let a token see later ones, so it is a running one. With
// q_learn the parameter "<name>.range_clip" [10] has the logarithms of what the ranges of these
// five are multiplied by, (lo, hi) of each.
#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <utility>

#include "model/slots.h"
#include "transforms/optical/optical_parameters.h"

namespace refract {

std::unique_ptr<AttentionCore> make_granular_attention(Build build, const AttentionSpec& spec,
                                                       const OpticalParameters& parameters);

// The tensors of such buffers; v undefined where there is none.
struct OpticalAttentionRanges {
  at::Tensor all, v;
};
// Attention in a forward pass with an observer (transforms/media/observer.h): [B, T, H * D], dense
// but for what the observer does. q [B, T, H, D], k and v [B, S, K, D].
at::Tensor observed_attention(const OpticalParameters& parameters, const AttentionSpec& spec,
                              const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                              const OpticalAttentionRanges& ranges);

// The keys and values that a call attends to, both [B, S, K, D]: its own, and those that the cache
// holds, where it has one, to which they are appended.
std::pair<at::Tensor, at::Tensor> attended(const ForwardContext& context, int64_t layer,
                                           const at::Tensor& k_BTKD, const at::Tensor& v_BTKD);

// Causal attention of the same inputs without a medium: [B, T, H * D].
at::Tensor dense_attention(const AttentionSpec& spec, const at::Tensor& q, const at::Tensor& k,
                           const at::Tensor& v);

}  // namespace refract
