// The feed-forward activations with the bias of the projection before them, in one pass. Only the
// input is kept for the backward pass, which computes the activation again; the bias's gradient is
// summed in that pass, in a fixed order.
#pragma once
#include <ATen/core/Tensor.h>

#include <tuple>

#include "ops/common/op.h"

namespace refract {

// gelu(x + bias): x [..., F], bias [F] of x's type or none -> [..., F]. tanh_form chooses GPT-2's
// approximation instead of the error function.
struct BiasGeluInputs {
  const at::Tensor& x;
  const MaybeTensor& bias;
  bool tanh_form;
};
inline constexpr Op<"bias_gelu", at::Tensor(BiasGeluInputs)> bias_gelu;

// silu(gate) * up with [gate | up] = x + bias: x [..., 2F], bias [2F] or none -> [..., F].
struct SwigluInputs {
  const at::Tensor& x;
  const MaybeTensor& bias;
};
inline constexpr Op<"swiglu", at::Tensor(SwigluInputs)> swiglu;

// (grad_x, grad_bias); grad_bias is empty ([0]) without a bias.
using ActivationGradients = std::tuple<at::Tensor, at::Tensor>;
struct BiasGeluBackwardInputs {
  const at::Tensor &grad, &x;
  const MaybeTensor& bias;
  bool tanh_form;
};
inline constexpr Op<"bias_gelu_backward", ActivationGradients(BiasGeluBackwardInputs)>
    bias_gelu_backward;
struct SwigluBackwardInputs {
  const at::Tensor &grad, &x;
  const MaybeTensor& bias;
};
inline constexpr Op<"swiglu_backward", ActivationGradients(SwigluBackwardInputs)> swiglu_backward;

namespace composite {
at::Tensor bias_gelu(const BiasGeluInputs& in);
at::Tensor swiglu(const SwigluInputs& in);
ActivationGradients bias_gelu_backward(const BiasGeluBackwardInputs& in);
ActivationGradients swiglu_backward(const SwigluBackwardInputs& in);
}  // namespace composite

namespace activation_op {
// Raise unless bias fits x (of `op`), and x's last dimension is even where `gated`.
void check(const char* op, const at::Tensor& x, const MaybeTensor& bias, bool gated);
void check_backward(const char* op, const at::Tensor& grad, const at::Tensor& x,
                    const MaybeTensor& bias, bool gated);
}  // namespace activation_op

}  // namespace refract
