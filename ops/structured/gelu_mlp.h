// Two products with GELU between them, the activation riding on the GEMMs: the forward pass applies
// bias and GELU while the first product is written, and the backward pass multiplies by GELU's
// slope, and sums the bias's gradient, while the gradient of the second product's input is written.
// The F-wide middle then crosses memory only as operand and result of products.
#pragma once
#include <ATen/core/Tensor.h>

#include <optional>
#include <tuple>

namespace refract {

// y = gelu(x W1^T + b1) W2^T, GELU in its tanh form. x [..., K], weight1 [F, K], bias1 [F] or none,
// weight2 [N, F] or block diagonal [B, N / B, F / B], all of one type -> [..., N]. A feed-forward
// without its last bias; of a structured one the part between the first factor of the projection up
// and the second of the projection down.
at::Tensor gelu_mlp(const at::Tensor& x, const at::Tensor& weight1,
                    const std::optional<at::Tensor>& bias1, const at::Tensor& weight2);

// Its two halves around GELU. h = x W1^T + b1, gelu(h): both [..., F].
std::tuple<at::Tensor, at::Tensor> linear_gelu(const at::Tensor& x, const at::Tensor& weight,
                                               const std::optional<at::Tensor>& bias);
// grad [..., N] of gelu(h) W2^T -> (grad_h [..., F], its sum over all rows [F]).
std::tuple<at::Tensor, at::Tensor> gelu_linear_backward(const at::Tensor& grad,
                                                        const at::Tensor& weight,
                                                        const at::Tensor& h);

namespace composite {
at::Tensor gelu_mlp(const at::Tensor& x, const at::Tensor& weight1,
                    const std::optional<at::Tensor>& bias1, const at::Tensor& weight2);
std::tuple<at::Tensor, at::Tensor> linear_gelu(const at::Tensor& x, const at::Tensor& weight,
                                               const std::optional<at::Tensor>& bias);
std::tuple<at::Tensor, at::Tensor> gelu_linear_backward(const at::Tensor& grad,
                                                        const at::Tensor& weight,
                                                        const at::Tensor& h);
}  // namespace composite

namespace gelu_mlp_op {
void check_linear(const char* op, const at::Tensor& x, const at::Tensor& weight,
                  const std::optional<at::Tensor>& bias);
// weight of the second product for h [..., F].
void check_second(const char* op, const at::Tensor& h, const at::Tensor& weight);
void check_backward(const at::Tensor& grad, const at::Tensor& weight, const at::Tensor& h);
}  // namespace gelu_mlp_op

}  // namespace refract
