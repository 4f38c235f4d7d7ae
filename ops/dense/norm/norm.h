// LayerNorm and RMSNorm over the last dimension, alone or with the residual add before it.
// Statistics are fp32 (float64 for float64). RMSNorm is Hugging Face Llama's: the normalised row is
// rounded to x's type before it is multiplied by the weight.
#pragma once
#include <ATen/core/Tensor.h>

#include <tuple>

#include "ops/common/op.h"

namespace refract {

// x [..., C], weight [C], bias [C] or none (always none for rms), all of one type -> y [..., C].
struct NormInputs {
  const at::Tensor &x, &weight;
  const MaybeTensor& bias;
  double eps;
  bool rms;
};
inline constexpr Op<"norm", at::Tensor(NormInputs)> norm;

// sum = x + residual (rounded to their type) and y = norm(sum): (y, sum). The gradient that flows
// into sum is added in the pass that makes the gradient of x and residual (one tensor for both).
struct AddNormInputs {
  const at::Tensor &x, &residual, &weight;
  const MaybeTensor& bias;
  double eps;
  bool rms;
};
inline constexpr Op<"add_norm", std::tuple<at::Tensor, at::Tensor>(AddNormInputs)> add_norm;

// Below autograd: (y, sum, mean, rstd). sum is empty ([0]) without a residual, mean for rms; mean
// and rstd are fp32 (float64) [rows].
struct NormForwardInputs {
  const at::Tensor& x;
  const MaybeTensor& residual;
  const at::Tensor& weight;
  const MaybeTensor& bias;
  double eps;
  bool rms;
};
using NormForwardResult = std::tuple<at::Tensor, at::Tensor, at::Tensor, at::Tensor>;
inline constexpr Op<"norm_forward", NormForwardResult(NormForwardInputs)> norm_forward;

// (grad_x, grad_weight, grad_bias): sum is what was normalised; grad_sum, if any, is added to
// grad_x; grad_bias is empty ([0]) without has_bias.
struct NormBackwardInputs {
  const at::Tensor& grad_y;
  const MaybeTensor& grad_sum;
  const at::Tensor &sum, &mean, &rstd, &weight;
  bool has_bias, rms;
};
using NormBackwardResult = std::tuple<at::Tensor, at::Tensor, at::Tensor>;
inline constexpr Op<"norm_backward", NormBackwardResult(NormBackwardInputs)> norm_backward;

namespace composite {
NormForwardResult norm_forward(const NormForwardInputs& in);
NormBackwardResult norm_backward(const NormBackwardInputs& in);
}  // namespace composite

namespace norm_op {
// Raise unless the inputs fit together.
void check_forward(const NormForwardInputs& in);
void check_backward(const NormBackwardInputs& in);
}  // namespace norm_op

}  // namespace refract
