// The norm ops on CUDA tensors: checks, memory and launches.
#include <ATen/ops/empty.h>
#include <ATen/ops/zeros_like.h>
#include <torch/library.h>

#include "ops/common/dispatch.h"
#include "ops/common/launch.h"
#include "ops/dense/norm/norm.h"
#include "ops/dense/norm/norm_kernel.h"

namespace refract {
namespace {

NormForwardResult forward_cuda(const at::Tensor& x_in, const std::optional<at::Tensor>& residual_in,
                               const at::Tensor& weight_in,
                               const std::optional<at::Tensor>& bias_in, double eps, bool rms) {
  if (!has_cuda_dtype(x_in.scalar_type())) {
    return composite::norm_forward(x_in, residual_in, weight_in, bias_in, eps, rms);
  }
  norm_op::check_forward(x_in, residual_in, weight_in, bias_in, rms);
  const c10::cuda::CUDAGuard guard(x_in.device());
  const at::Tensor x = x_in.contiguous(), weight = weight_in.contiguous();
  const at::Tensor residual = residual_in ? residual_in->contiguous() : at::Tensor();
  const at::Tensor bias = bias_in ? bias_in->contiguous() : at::Tensor();
  const int64_t columns = x.size(-1), rows = columns == 0 ? 0 : x.numel() / columns;
  const auto wide = x.options().dtype(at::kFloat);
  at::Tensor y = at::empty(x.sizes(), x.options());
  at::Tensor sum =
      residual.defined() ? at::empty(x.sizes(), x.options()) : at::empty({0}, x.options());
  at::Tensor mean = at::empty({rms ? 0 : rows}, wide), rstd = at::empty({rows}, wide);
  if (rows > 0) {
    NormForward a{};
    a.x = x.const_data_ptr();
    a.residual = residual.defined() ? residual.const_data_ptr() : nullptr;
    a.weight = weight.const_data_ptr();
    a.bias = bias.defined() ? bias.const_data_ptr() : nullptr;
    a.y = y.mutable_data_ptr();
    a.sum = residual.defined() ? sum.mutable_data_ptr() : nullptr;
    a.mean = rms ? nullptr : mean.mutable_data_ptr<float>();
    a.rstd = rstd.mutable_data_ptr<float>();
    a.rows = rows;
    a.columns = columns;
    a.eps = static_cast<float>(eps);
    a.rms = rms;
    check_launch("norm", launch_norm_forward(a, cuda_dtype(x.scalar_type()), current_stream()));
  }
  return {y, sum, mean, rstd};
}

NormBackwardResult backward_cuda(const at::Tensor& grad_y_in,
                                 const std::optional<at::Tensor>& grad_sum_in,
                                 const at::Tensor& sum_in, const at::Tensor& mean,
                                 const at::Tensor& rstd, const at::Tensor& weight_in, bool has_bias,
                                 bool rms) {
  if (!has_cuda_dtype(sum_in.scalar_type())) {
    return composite::norm_backward(grad_y_in, grad_sum_in, sum_in, mean, rstd, weight_in, has_bias,
                                    rms);
  }
  norm_op::check_backward(grad_y_in, grad_sum_in, sum_in, mean, rstd, weight_in, rms);
  const c10::cuda::CUDAGuard guard(sum_in.device());
  const at::Tensor grad_y = grad_y_in.contiguous(), sum = sum_in.contiguous(),
                   weight = weight_in.contiguous();
  const at::Tensor grad_sum = grad_sum_in ? grad_sum_in->contiguous() : at::Tensor();
  const int64_t columns = sum.size(-1), rows = columns == 0 ? 0 : sum.numel() / columns;
  at::Tensor grad_x = at::empty(sum.sizes(), sum.options());
  if (rows == 0) {
    return {grad_x, at::zeros_like(weight),
            has_bias ? at::zeros_like(weight) : at::empty({0}, weight.options())};
  }
  at::Tensor grad_weight = at::empty(weight.sizes(), weight.options());
  at::Tensor grad_bias = at::empty({has_bias ? columns : 0}, weight.options());
  const Dtype dtype = cuda_dtype(sum.scalar_type());
  NormBackward a{};
  a.parts = norm_backward_parts(rows, columns, dtype, multiprocessors());
  at::Tensor partial = at::empty({2, a.parts, columns}, rstd.options());
  a.grad_y = grad_y.const_data_ptr();
  a.grad_sum = grad_sum.defined() ? grad_sum.const_data_ptr() : nullptr;
  a.sum = sum.const_data_ptr();
  a.weight = weight.const_data_ptr();
  a.mean = rms ? nullptr : mean.const_data_ptr<float>();
  a.rstd = rstd.const_data_ptr<float>();
  a.grad_x = grad_x.mutable_data_ptr();
  a.grad_weight = grad_weight.mutable_data_ptr();
  a.grad_bias = has_bias ? grad_bias.mutable_data_ptr() : nullptr;
  a.partial = partial.mutable_data_ptr<float>();
  a.rows = rows;
  a.columns = columns;
  check_launch("norm_backward", launch_norm_backward(a, dtype, current_stream()));
  return {grad_x, grad_weight, grad_bias};
}

}  // namespace

TORCH_LIBRARY_IMPL(refract, CUDA, m) {
  m.impl("norm_forward", forward_cuda);
  m.impl("norm_backward", backward_cuda);
}

}  // namespace refract
