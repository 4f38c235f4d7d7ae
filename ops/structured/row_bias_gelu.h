// GELU with its bias where features are stored row by row, as a BlockShuffle layer leaves them
// (block_linear with feature_major): the bias belongs to a row, and its gradient is a row's sum.
#pragma once
#include <ATen/core/Tensor.h>

#include <optional>
#include <tuple>

namespace refract {

// gelu(x + bias[:, None]): x [F, n], bias [F] of x's type or none -> [F, n].
at::Tensor row_bias_gelu(const at::Tensor& x, const std::optional<at::Tensor>& bias,
                         bool tanh_form);
// (grad_x, grad_bias); grad_bias is empty ([0]) without a bias.
std::tuple<at::Tensor, at::Tensor> row_bias_gelu_backward(const at::Tensor& grad,
                                                          const at::Tensor& x,
                                                          const std::optional<at::Tensor>& bias,
                                                          bool tanh_form);

namespace composite {
at::Tensor row_bias_gelu(const at::Tensor& x, const std::optional<at::Tensor>& bias,
                         bool tanh_form);
std::tuple<at::Tensor, at::Tensor> row_bias_gelu_backward(const at::Tensor& grad,
                                                          const at::Tensor& x,
                                                          const std::optional<at::Tensor>& bias,
                                                          bool tanh_form);
}  // namespace composite

namespace row_gelu_op {
void check(const char* op, const at::Tensor& x, const std::optional<at::Tensor>& bias);
}  // namespace row_gelu_op

}  // namespace refract
