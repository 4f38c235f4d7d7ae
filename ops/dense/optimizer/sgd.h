// Stochastic gradient descent with momentum over flat arenas, beside AdamW (optimizer.h).
#pragma once
#include <ATen/core/Tensor.h>

#include "ops/common/op.h"

namespace refract {

struct Sgd {
  double momentum = 0.9, weight_decay = 0;
  int64_t n_decay = 0;  // the first n_decay elements decay
  bool nesterov = false;
  bool zero_grads = false;  // leave zeros in grads
};
template <>
inline constexpr bool kListedByField<Sgd> = true;

// As torch.optim.SGD computes it without dampening, in fp32: d = g + weight_decay w;
// b = momentum b + d, from b = 0; w -= lr b, with nesterov lr (d + momentum b). All [n],
// contiguous: master and buffer fp32; grads fp32, bf16 or fp16, multiplied by control[0] first;
// compute, where given, receives the new weights rounded to its type. hyper and control as of
// adamw_: hyper[0] is the learning rate, and where control[1] is not zero nothing is written. On
// CUDA it runs in its composite form, of some ten passes over the arena.
struct SgdInputs {
  const at::Tensor& master;
  const MaybeTensor& compute;
  const at::Tensor &grads, &buffer, &hyper, &control;
  const Sgd& settings;
};
inline constexpr Op<"sgd_", void(SgdInputs)> sgd_;

namespace composite {
void sgd_(const SgdInputs& in);
}  // namespace composite

namespace sgd_op {
void check(const SgdInputs& in);
}  // namespace sgd_op

}  // namespace refract
