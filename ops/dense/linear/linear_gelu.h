// A linear layer with GELU in the GEMM's epilogue: on CUDA bias and GELU are applied while the
// product is written, together with the pre-activation that the backward pass needs, which saves a
// pass that reads it again. (cuBLASLt's epilogue for the slope costs as much as a pass of its own
// on an H100, so the backward pass uses bias_gelu_backward's kernel.)
#pragma once
#include <ATen/core/Tensor.h>

#include <optional>
#include <tuple>

namespace refract {

// gelu(x W^T + b), GELU in its tanh form. x [..., K], weight [F, K], bias [F] or none, all of one
// type -> [..., F].
at::Tensor linear_gelu(const at::Tensor& x, const at::Tensor& weight,
                       const std::optional<at::Tensor>& bias);

// (h, gelu(h)) with h = x W^T + b: what the forward pass keeps.
std::tuple<at::Tensor, at::Tensor> linear_gelu_forward(const at::Tensor& x,
                                                       const at::Tensor& weight,
                                                       const std::optional<at::Tensor>& bias);

namespace composite {
at::Tensor linear_gelu(const at::Tensor& x, const at::Tensor& weight,
                       const std::optional<at::Tensor>& bias);
std::tuple<at::Tensor, at::Tensor> linear_gelu_forward(const at::Tensor& x,
                                                       const at::Tensor& weight,
                                                       const std::optional<at::Tensor>& bias);
}  // namespace composite

namespace linear_gelu_op {
void check(const char* op, const at::Tensor& x, const at::Tensor& weight,
           const std::optional<at::Tensor>& bias);
}  // namespace linear_gelu_op

}  // namespace refract
