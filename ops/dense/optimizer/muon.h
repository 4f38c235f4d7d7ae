// Muon: steps along orthogonal matrices, for the weights of hidden layers; everything else keeps
// AdamW (optimizer.h).
#pragma once
#include <ATen/core/Tensor.h>

#include "ops/common/op.h"

namespace refract {

struct Muon {
  double momentum = 0.95, weight_decay = 0;
  bool nesterov = true;
  int64_t steps = 5;        // of the Newton-Schulz iteration
  bool half = false;        // the iteration's products in bf16, as on a GPU; else in fp32
  bool zero_grads = false;  // leave zeros in grads
};
template <>
inline constexpr bool kListedByField<Muon> = true;

// Muon (Jordan et al., "Muon: an optimizer for hidden layers in neural networks", 2024) with the
// step size of Liu et al., "Muon is scalable for LLM training" (2025), as torch.optim.Muon computes
// it with adjust_lr_fn = "match_rms_adamw": b = momentum b + (1 - momentum) g, from b = 0;
// u = b, with nesterov momentum b + (1 - momentum) g; O = the iteration from u / |u|, whose
// singular values lie near 1; w = (1 - lr weight_decay) w - 0.2 sqrt(max(rows, columns)) lr O. So
// learning rates and decays that suit AdamW suit it. master, buffer: fp32 [..., rows, columns],
// contiguous, each matrix for itself; grads of the same shape in fp32, bf16 or fp16, multiplied by
// control[0] first; compute, where given, receives the new weights rounded to its type. hyper and
// control as of adamw_: hyper[0] is the learning rate, and where control[1] is not zero nothing is
// written. It has its composite form alone: nearly all of its time is in matrix products.
struct MuonInputs {
  const at::Tensor& master;
  const MaybeTensor& compute;
  const at::Tensor &grads, &buffer, &hyper, &control;
  const Muon& settings;
};
inline constexpr Op<"muon_", void(MuonInputs)> muon_;

namespace composite {
void muon_(const MuonInputs& in);
}  // namespace composite

}  // namespace refract
