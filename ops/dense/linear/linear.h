// x W^T + b with its gradients, one node in the graph of autograd. On a CPU fp32 products are made
// by kernels of ours (ops/common/gemm_cpu.h): for a few hundred rows a BLAS library spends longer
// on packing and on its checks than on the product, and on some processors it uses half of the
// vectors.
#pragma once
#include <ATen/core/Tensor.h>

#include <optional>
#include <tuple>

namespace refract {

// x [..., K], weight [N, K], bias [N], one floating type -> [..., N]. Calls the op on a CPU and
// at::linear elsewhere, whose libraries have the same in one launch. (Called linear, it would be
// ambiguous with at::linear.)
at::Tensor fused_linear(const at::Tensor& x, const at::Tensor& weight,
                        const std::optional<at::Tensor>& bias = std::nullopt);

// grad [..., N] -> the gradients of x, weight and bias; of shape [0] where one is not needed.
using LinearGradients = std::tuple<at::Tensor, at::Tensor, at::Tensor>;
LinearGradients linear_backward(const at::Tensor& grad, const at::Tensor& x,
                                const at::Tensor& weight, bool need_x, bool need_weight,
                                bool need_bias);

namespace composite {
at::Tensor linear(const at::Tensor& x, const at::Tensor& weight,
                  const std::optional<at::Tensor>& bias);
LinearGradients linear_backward(const at::Tensor& grad, const at::Tensor& x,
                                const at::Tensor& weight, bool need_x, bool need_weight,
                                bool need_bias);
}  // namespace composite

namespace linear_op {
void check(const at::Tensor& x, const at::Tensor& weight, const std::optional<at::Tensor>& bias);
void check_backward(const at::Tensor& grad, const at::Tensor& x, const at::Tensor& weight);
}  // namespace linear_op

}  // namespace refract
