// LayerNorm and RMSNorm over the last dimension, alone or with the residual add before it.
// Statistics are fp32 (float64 for float64). RMSNorm is Hugging Face Llama's: the normalised row is
// rounded to x's type before it is multiplied by the weight.
#pragma once
#include <ATen/core/Tensor.h>

#include <optional>
#include <tuple>

namespace refract {

// x [..., C], weight [C], bias [C] or none (always none for rms), all of one type -> y [..., C].
at::Tensor norm(const at::Tensor& x, const at::Tensor& weight,
                const std::optional<at::Tensor>& bias, double eps, bool rms);

// sum = x + residual (rounded to their type) and y = norm(sum): (y, sum). The gradient that flows
// into sum is added in the pass that makes the gradient of x and residual (one tensor for both).
std::tuple<at::Tensor, at::Tensor> add_norm(const at::Tensor& x, const at::Tensor& residual,
                                            const at::Tensor& weight,
                                            const std::optional<at::Tensor>& bias, double eps,
                                            bool rms);

// Below autograd: (y, sum, mean, rstd). sum is empty ([0]) without a residual, mean for rms; mean
// and rstd are fp32 (float64) [rows].
using NormForwardResult = std::tuple<at::Tensor, at::Tensor, at::Tensor, at::Tensor>;
NormForwardResult norm_forward(const at::Tensor& x, const std::optional<at::Tensor>& residual,
                               const at::Tensor& weight, const std::optional<at::Tensor>& bias,
                               double eps, bool rms);

// (grad_x, grad_weight, grad_bias): sum is what was normalised; grad_sum, if any, is added to
// grad_x; grad_bias is empty ([0]) without has_bias.
using NormBackwardResult = std::tuple<at::Tensor, at::Tensor, at::Tensor>;
NormBackwardResult norm_backward(const at::Tensor& grad_y,
                                 const std::optional<at::Tensor>& grad_sum, const at::Tensor& sum,
                                 const at::Tensor& mean, const at::Tensor& rstd,
                                 const at::Tensor& weight, bool has_bias, bool rms);

namespace composite {
NormForwardResult norm_forward(const at::Tensor& x, const std::optional<at::Tensor>& residual,
                               const at::Tensor& weight, const std::optional<at::Tensor>& bias,
                               double eps, bool rms);
NormBackwardResult norm_backward(const at::Tensor& grad_y,
                                 const std::optional<at::Tensor>& grad_sum, const at::Tensor& sum,
                                 const at::Tensor& mean, const at::Tensor& rstd,
                                 const at::Tensor& weight, bool has_bias, bool rms);
}  // namespace composite

namespace norm_op {
// Raise unless the arguments fit together.
void check_forward(const at::Tensor& x, const std::optional<at::Tensor>& residual,
                   const at::Tensor& weight, const std::optional<at::Tensor>& bias, bool rms);
void check_backward(const at::Tensor& grad_y, const std::optional<at::Tensor>& grad_sum,
                    const at::Tensor& sum, const at::Tensor& mean, const at::Tensor& rstd,
                    const at::Tensor& weight, bool rms);
}  // namespace norm_op

}  // namespace refract
