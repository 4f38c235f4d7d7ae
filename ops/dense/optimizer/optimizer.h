// The optimizer over flat arenas: every op is one launch (or two) for all parameters, and all that
// changes from step to step lies in device memory, so a captured step replays unchanged.
#pragma once
#include <ATen/core/Tensor.h>

#include "ops/common/op.h"

namespace refract {

// hyper, fp32 [4]: {learning rate, 1 - beta1^t, 1 - beta2^t, unused} with t = 1, 2, ...
// control, fp32 [4]: {gradient multiplier, halted, the step at which it halted, unused}.

struct AdamW {
  double beta1 = 0.9, beta2 = 0.999, eps = 1e-8, weight_decay = 0.01;
  int64_t n_decay = 0;      // the first n_decay elements decay
  bool zero_grads = false;  // leave zeros in grads
};
template <>
inline constexpr bool kListedByField<AdamW> = true;

// AdamW (Loshchilov and Hutter, "Decoupled Weight Decay Regularization", ICLR 2019) as
// torch.optim.AdamW computes it in fp32; weight_decay = 0 is Adam. All [n], contiguous: master,
// exp_avg, exp_avg_sq fp32; grads fp32, bf16 or fp16, multiplied by control[0] first; compute,
// where given, receives the new weights rounded to its type. Where control[1] is not zero nothing
// is written.
struct AdamWInputs {
  const at::Tensor& master;
  const MaybeTensor& compute;
  const at::Tensor &grads, &exp_avg, &exp_avg_sq, &hyper, &control;
  const AdamW& settings;
};
inline constexpr Op<"adamw_", void(AdamWInputs)> adamw_;

// The Euclidean norm of all elements, fp32 []. flat: fp32, bf16 or fp16; summed in float64 between
// threads, in an order that depends on the size only.
struct GlobalNormInputs {
  const at::Tensor& flat;
};
inline constexpr Op<"global_norm", at::Tensor(GlobalNormInputs)> global_norm;

// control[0] = min(1, max_norm / (norm + 1e-6)), as torch.nn.utils.clip_grad_norm_; 1 for max_norm
// <= 0. Where norm or loss is not finite and control[1] is still 0: control[1] = 1 and control[2] =
// step (exact to 2^24), and so it stays. norm, loss: fp32 of one element; step: int64 [1].
struct StepControlInputs {
  const at::Tensor &control, &norm, &loss;
  double max_norm;
  const at::Tensor& step;
};
inline constexpr Op<"step_control_", void(StepControlInputs)> step_control_;

// sum += part; part = 0. sum fp32 [n], part bf16 or fp16 [n]: the gradients of one micro-batch.
struct AccumulateInputs {
  const at::Tensor &sum, &part;
};
inline constexpr Op<"accumulate_", void(AccumulateInputs)> accumulate_;

namespace composite {
void adamw_(const AdamWInputs& in);
at::Tensor global_norm(const GlobalNormInputs& in);
void step_control_(const StepControlInputs& in);
void accumulate_(const AccumulateInputs& in);
}  // namespace composite

// Checks of inputs, shared by the forms.
namespace optimizer {
void check_adamw(const AdamWInputs& in);
void check_norm(const GlobalNormInputs& in);
void check_control(const StepControlInputs& in);
void check_accumulate(const AccumulateInputs& in);
}  // namespace optimizer
}  // namespace refract
