// A linear layer with GELU in the GEMM's epilogue: on CUDA bias and GELU are applied while the
// product is written, together with the pre-activation that the backward pass needs, which saves a
// pass that reads it again. (cuBLASLt's epilogue for the slope costs as much as a pass of its own
// on an H100, so the backward pass uses bias_gelu_backward's kernel.)
#pragma once
#include <ATen/core/Tensor.h>

#include <tuple>

#include "ops/common/op.h"
#include "ops/dense/linear/linear.h"

namespace refract {

// gelu(x W^T + b), GELU in its tanh form. x [..., K], weight [F, K], bias [F] or none, all of one
// type -> [..., F].
inline constexpr Op<"linear_gelu", at::Tensor(LinearInputs)> linear_gelu;

// (h, gelu(h)) with h = x W^T + b: what the forward pass keeps.
using LinearGeluResult = std::tuple<at::Tensor, at::Tensor>;
inline constexpr Op<"linear_gelu_forward", LinearGeluResult(LinearInputs)> linear_gelu_forward;

namespace composite {
at::Tensor linear_gelu(const LinearInputs& in);
LinearGeluResult linear_gelu_forward(const LinearInputs& in);
}  // namespace composite

namespace linear_gelu_op {
void check(const char* op, const LinearInputs& in);
}  // namespace linear_gelu_op

}  // namespace refract
