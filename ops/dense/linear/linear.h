// x W^T + b with its gradients, one node in the graph of autograd. On a CPU fp32 products are made
// by kernels of ours (ops/common/gemm_cpu.h): for a few hundred rows a BLAS library spends longer
// on packing and on its checks than on the product, and on some processors it uses half of the
// vectors.
#pragma once
#include <ATen/core/Tensor.h>

#include <tuple>

#include "ops/common/op.h"

namespace refract {

// x [..., K], weight [N, K], bias [N], one floating type -> [..., N].
struct LinearInputs {
  const at::Tensor &x, &weight;
  const MaybeTensor& bias;
};
inline constexpr Op<"linear", at::Tensor(LinearInputs)> linear;

// The op on a CPU and at::linear elsewhere, whose libraries have the same in one launch.
at::Tensor fused_linear(const at::Tensor& x, const at::Tensor& weight,
                        const MaybeTensor& bias = std::nullopt);

// grad [..., N] -> the gradients of x, weight and bias; of shape [0] where one is not needed.
struct LinearBackwardInputs {
  const at::Tensor &grad, &x, &weight;
  bool need_x, need_weight, need_bias;
};
using LinearGradients = std::tuple<at::Tensor, at::Tensor, at::Tensor>;
inline constexpr Op<"linear_backward", LinearGradients(LinearBackwardInputs)> linear_backward;

namespace composite {
at::Tensor linear(const LinearInputs& in);
LinearGradients linear_backward(const LinearBackwardInputs& in);
}  // namespace composite

namespace linear_op {
void check(const LinearInputs& in);
void check_backward(const LinearBackwardInputs& in);
}  // namespace linear_op

}  // namespace refract
