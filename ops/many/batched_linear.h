// One linear layer of many models: a batched product whose epilogue adds the bias.
#pragma once
#include <ATen/core/Tensor.h>

#include "ops/common/op.h"

namespace refract {

// x [A, N, K], weight [A, O, K], bias [A, 1, O] or none -> x W^T + b [A, N, O], with `gelu` (tanh
// form) of it. With `wide`, x and weight are bfloat16 (of split operands, say), bias and result
// fp32; else all are of one type. Not differentiable.
struct BatchedLinearInputs {
  const at::Tensor &x, &weight;
  const MaybeTensor& bias;
  bool wide, gelu;
};
inline constexpr Op<"batched_linear", at::Tensor(BatchedLinearInputs)> batched_linear;

namespace composite {
at::Tensor batched_linear(const BatchedLinearInputs& in);
}  // namespace composite

namespace batched_linear_op {
// Raises unless the inputs fit together.
void check(const BatchedLinearInputs& in);
}  // namespace batched_linear_op

}  // namespace refract
