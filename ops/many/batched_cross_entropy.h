// The output layer and its loss for many models on the same tokens, without gradients.
#pragma once
#include <ATen/core/Tensor.h>

#include "ops/common/op.h"

namespace refract {

// loss_sum [A]: per model the sum of -log softmax(x W^T)[target] in nats, float64; num_correct [A]
// int64: how often the arg max (the lowest index among equals) is the target.
struct BatchedCrossEntropy {
  at::Tensor loss_sum, num_correct;
};

// x [A, N, C], weight [A, Vp, C] (its models may lie apart, each one dense), targets [N] int64 or
// int32, num_classes V <= Vp, as linear_cross_entropy() has them for each model. With `split`, x
// and weight are what split_bfloat16() and split_weight_bfloat16() make of fp32 operands, and
// logits are fp32. Nothing here is differentiable.
//
// On Hopper GPUs 16-bit operands never become logits in memory (batched_cross_entropy_sm90a.cu).
struct BatchedCrossEntropyInputs {
  const at::Tensor &x, &weight, &targets;
  int64_t num_classes;
  bool split = false;
};
inline constexpr Op<"batched_linear_cross_entropy", BatchedCrossEntropy(BatchedCrossEntropyInputs)>
    batched_linear_cross_entropy;

// Whether it is so for split operands of this width, on this device.
bool has_fused_split_head(int64_t width, at::Device device);

namespace composite {
// One model after the other by linear_cross_entropy().
BatchedCrossEntropy batched_linear_cross_entropy(const BatchedCrossEntropyInputs& in);
}  // namespace composite

namespace batched_cross_entropy {
// Raises unless the inputs fit together.
void check(const BatchedCrossEntropyInputs& in);
}  // namespace batched_cross_entropy

}  // namespace refract
