// The output layer and a loss that compares with another model's output layer, in one op: logits of
// V columns never exist for the whole batch, neither the student's nor the teacher's.
#pragma once
#include <ATen/core/Tensor.h>

#include <tuple>

#include "ops/common/op.h"

namespace refract {

// x [..., C], weight [Vp, C], targets [...] int64 or int32, teacher_x [..., Ct], teacher_weight
// [Vt, Ct], num_classes V <= Vp and Vt. With p_T = softmax(x W^T / T) and q_T the teacher's, in
// fp32 (float64), the sum over tokens of
//   (1 - mix) (-log p_1[target]) + mix T^2 sum_v q_T[v] (log q_T[v] - log p_T[v])
// in nats (Hinton et al., arXiv 1503.02531, section 2). A target of kIgnoredTarget
// (cross_entropy.h) counts nowhere; any other outside [0, V) makes the loss NaN. Gradients are
// those of x and weight, made in the forward pass where an input requires one; the teacher gets
// none.
struct DistillationInputs {
  const at::Tensor &x, &weight, &targets, &teacher_x, &teacher_weight;
  int64_t num_classes;
  double temperature, mix;
};
inline constexpr Op<"linear_distillation", at::Tensor(DistillationInputs)> linear_distillation;

// The op below autograd: (loss_sum, dx, dweight), empty ([0]) where not wanted; dx has x's type,
// dweight is fp32 for half types. chunk_rows = 0 chooses how many rows' logits exist at once.
struct DistillationForwardInputs {
  const at::Tensor &x, &weight, &targets, &teacher_x, &teacher_weight;
  int64_t num_classes;
  double temperature, mix;
  bool need_dx, need_dweight;
  int64_t chunk_rows = 0;
};
using DistillationForward = std::tuple<at::Tensor, at::Tensor, at::Tensor>;
inline constexpr Op<"linear_distillation_forward", DistillationForward(DistillationForwardInputs)>
    linear_distillation_forward;

}  // namespace refract
