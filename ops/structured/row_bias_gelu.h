// GELU with its bias where features are stored row by row, as a BlockShuffle layer leaves them
// (block_linear with feature_major): the bias belongs to a row, and its gradient is a row's sum.
#pragma once
#include <ATen/core/Tensor.h>

#include "ops/common/op.h"
#include "ops/dense/activation/activation.h"

namespace refract {

// gelu(x + bias[:, None]): x [F, n], bias [F] of x's type or none -> [F, n].
inline constexpr Op<"row_bias_gelu", at::Tensor(BiasGeluInputs)> row_bias_gelu;
// (grad_x, grad_bias); grad_bias is empty ([0]) without a bias.
inline constexpr Op<"row_bias_gelu_backward", ActivationGradients(BiasGeluBackwardInputs)>
    row_bias_gelu_backward;

namespace composite {
at::Tensor row_bias_gelu(const BiasGeluInputs& in);
ActivationGradients row_bias_gelu_backward(const BiasGeluBackwardInputs& in);
}  // namespace composite

namespace row_bias_gelu_op {
// Raise unless the inputs fit together.
void check(const BiasGeluInputs& in);
void check_backward(const BiasGeluBackwardInputs& in);
}  // namespace row_bias_gelu_op

}  // namespace refract
