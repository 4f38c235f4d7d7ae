// One linear layer of many models: a batched product whose epilogue adds the bias.
#pragma once
#include <ATen/core/Tensor.h>

namespace refract {

// x [A, N, K], weight [A, O, K], bias [A, 1, O] or none -> x W^T + b [A, N, O], with `gelu` (tanh
// form) of it. With `wide`, x and weight are bfloat16 (of split operands, say), bias and result
// fp32; else all are of one type. Not differentiable.
at::Tensor batched_linear(const at::Tensor& x, const at::Tensor& weight,
                          const std::optional<at::Tensor>& bias, bool wide, bool gelu);

namespace composite {
at::Tensor batched_linear(const at::Tensor& x, const at::Tensor& weight,
                          const std::optional<at::Tensor>& bias, bool wide, bool gelu);
}  // namespace composite

namespace batched_linear_op {
// Raises unless the arguments fit together.
void check(const at::Tensor& x, const at::Tensor& weight, const std::optional<at::Tensor>& bias,
           bool wide);
}  // namespace batched_linear_op

}  // namespace refract
