// The feed-forward activations with the bias of the projection before them, in one pass. Only the
// input is kept for the backward pass, which computes the activation again; the bias's gradient is
// summed in that pass, in a fixed order.
#pragma once
#include <ATen/core/Tensor.h>

#include <optional>
#include <tuple>

namespace refract {

// gelu(x + bias): x [..., F], bias [F] of x's type or none -> [..., F]. tanh_form chooses GPT-2's
// approximation instead of the error function.
at::Tensor bias_gelu(const at::Tensor& x, const std::optional<at::Tensor>& bias, bool tanh_form);

// silu(gate) * up with [gate | up] = x + bias: x [..., 2F], bias [2F] or none -> [..., F].
at::Tensor swiglu(const at::Tensor& x, const std::optional<at::Tensor>& bias);

// (grad_x, grad_bias); grad_bias is empty ([0]) without a bias.
std::tuple<at::Tensor, at::Tensor> bias_gelu_backward(const at::Tensor& grad, const at::Tensor& x,
                                                      const std::optional<at::Tensor>& bias,
                                                      bool tanh_form);
std::tuple<at::Tensor, at::Tensor> swiglu_backward(const at::Tensor& grad, const at::Tensor& x,
                                                   const std::optional<at::Tensor>& bias);

namespace composite {
at::Tensor bias_gelu(const at::Tensor& x, const std::optional<at::Tensor>& bias, bool tanh_form);
at::Tensor swiglu(const at::Tensor& x, const std::optional<at::Tensor>& bias);
std::tuple<at::Tensor, at::Tensor> bias_gelu_backward(const at::Tensor& grad, const at::Tensor& x,
                                                      const std::optional<at::Tensor>& bias,
                                                      bool tanh_form);
std::tuple<at::Tensor, at::Tensor> swiglu_backward(const at::Tensor& grad, const at::Tensor& x,
                                                   const std::optional<at::Tensor>& bias);
}  // namespace composite

namespace activation_op {
// Raise unless bias fits x (of `op`), and x's last dimension is even where `gated`.
void check(const char* op, const at::Tensor& x, const std::optional<at::Tensor>& bias, bool gated);
void check_backward(const char* op, const at::Tensor& grad, const at::Tensor& x,
                    const std::optional<at::Tensor>& bias, bool gated);
}  // namespace activation_op

}  // namespace refract
