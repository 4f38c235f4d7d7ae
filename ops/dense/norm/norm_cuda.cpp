// The norm ops on CUDA tensors: checks, memory and launches.
#include <ATen/ops/empty.h>
#include <ATen/ops/zeros_like.h>

#include "ops/common/define.h"
#include "ops/common/dispatch.h"
#include "ops/common/launch.h"
#include "ops/dense/norm/norm.h"
#include "ops/dense/norm/norm_kernel.h"

namespace refract {
namespace {

NormForwardResult forward_cuda(const NormForwardInputs& in) {
  if (!has_cuda_dtype(in.x.scalar_type())) {
    return composite::norm_forward(in);
  }
  norm_op::check_forward(in);
  const c10::cuda::CUDAGuard guard(in.x.device());
  const at::Tensor x = in.x.contiguous(), weight = in.weight.contiguous();
  const at::Tensor residual = in.residual ? in.residual->contiguous() : at::Tensor();
  const at::Tensor bias = in.bias ? in.bias->contiguous() : at::Tensor();
  const int64_t columns = x.size(-1), rows = columns == 0 ? 0 : x.numel() / columns;
  const auto wide = x.options().dtype(at::kFloat);
  at::Tensor y = at::empty(x.sizes(), x.options());
  at::Tensor sum =
      residual.defined() ? at::empty(x.sizes(), x.options()) : at::empty({0}, x.options());
  at::Tensor mean = at::empty({in.rms ? 0 : rows}, wide), rstd = at::empty({rows}, wide);
  if (rows > 0) {
    NormForward a{};
    a.x = x.const_data_ptr();
    a.residual = residual.defined() ? residual.const_data_ptr() : nullptr;
    a.weight = weight.const_data_ptr();
    a.bias = bias.defined() ? bias.const_data_ptr() : nullptr;
    a.y = y.mutable_data_ptr();
    a.sum = residual.defined() ? sum.mutable_data_ptr() : nullptr;
    a.mean = in.rms ? nullptr : mean.mutable_data_ptr<float>();
    a.rstd = rstd.mutable_data_ptr<float>();
    a.rows = rows;
    a.columns = columns;
    a.eps = static_cast<float>(in.eps);
    a.rms = in.rms;
    check_launch("norm", launch_norm_forward(a, cuda_dtype(x.scalar_type()), current_stream()));
  }
  return {y, sum, mean, rstd};
}

NormBackwardResult backward_cuda(const NormBackwardInputs& in) {
  if (!has_cuda_dtype(in.sum.scalar_type())) {
    return composite::norm_backward(in);
  }
  norm_op::check_backward(in);
  const c10::cuda::CUDAGuard guard(in.sum.device());
  const at::Tensor grad_y = in.grad_y.contiguous(), sum = in.sum.contiguous(),
                   weight = in.weight.contiguous();
  const at::Tensor grad_sum = in.grad_sum ? in.grad_sum->contiguous() : at::Tensor();
  const int64_t columns = sum.size(-1), rows = columns == 0 ? 0 : sum.numel() / columns;
  at::Tensor grad_x = at::empty(sum.sizes(), sum.options());
  if (rows == 0) {
    return {grad_x, at::zeros_like(weight),
            in.has_bias ? at::zeros_like(weight) : at::empty({0}, weight.options())};
  }
  at::Tensor grad_weight = at::empty(weight.sizes(), weight.options());
  at::Tensor grad_bias = at::empty({in.has_bias ? columns : 0}, weight.options());
  const Dtype dtype = cuda_dtype(sum.scalar_type());
  NormBackward a{};
  a.parts = norm_backward_parts(rows, columns, dtype, multiprocessors());
  at::Tensor partial = at::empty({2, a.parts, columns}, in.rstd.options());
  a.grad_y = grad_y.const_data_ptr();
  a.grad_sum = grad_sum.defined() ? grad_sum.const_data_ptr() : nullptr;
  a.sum = sum.const_data_ptr();
  a.weight = weight.const_data_ptr();
  a.mean = in.rms ? nullptr : in.mean.const_data_ptr<float>();
  a.rstd = in.rstd.const_data_ptr<float>();
  a.grad_x = grad_x.mutable_data_ptr();
  a.grad_weight = grad_weight.mutable_data_ptr();
  a.grad_bias = in.has_bias ? grad_bias.mutable_data_ptr() : nullptr;
  a.partial = partial.mutable_data_ptr<float>();
  a.rows = rows;
  a.columns = columns;
  check_launch("norm_backward", launch_norm_backward(a, dtype, current_stream()));
  return {grad_x, grad_weight, grad_bias};
}

}  // namespace

TORCH_LIBRARY_FRAGMENT(refract, m) {
  forms(m, norm_forward).cuda<forward_cuda>();
  forms(m, norm_backward).cuda<backward_cuda>();
}

}  // namespace refract
