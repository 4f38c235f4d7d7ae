// row_bias_gelu on CUDA tensors.
#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>

#include "ops/common/define.h"
#include "ops/common/dispatch.h"
#include "ops/common/launch.h"
#include "ops/structured/row_bias_gelu.h"
#include "ops/structured/row_bias_gelu_kernel.h"

namespace refract {
namespace {

at::Tensor forward(const BiasGeluInputs& in) {
  row_bias_gelu_op::check(in);
  if (!has_cuda_dtype(in.x.scalar_type())) {
    return composite::row_bias_gelu(in);
  }
  const c10::cuda::CUDAGuard guard(in.x.device());
  const at::Tensor x = in.x.contiguous();
  const at::Tensor bias = in.bias ? in.bias->contiguous() : at::Tensor();
  at::Tensor y = at::empty(x.sizes(), x.options());
  if (y.numel() == 0) return y;
  RowGeluArgs a{};
  a.x = x.const_data_ptr();
  a.bias = bias.defined() ? bias.const_data_ptr() : nullptr;
  a.out = y.mutable_data_ptr();
  a.rows = x.size(0);
  a.columns = x.size(1);
  a.tanh_form = in.tanh_form;
  check_launch("row_bias_gelu",
               launch_row_gelu_forward(a, cuda_dtype(x.scalar_type()), current_stream()));
  return y;
}

ActivationGradients backward(const BiasGeluBackwardInputs& in) {
  const char* op = "row_bias_gelu_backward";
  row_bias_gelu_op::check_backward(in);
  if (!has_cuda_dtype(in.x.scalar_type())) {
    return composite::row_bias_gelu_backward(in);
  }
  const c10::cuda::CUDAGuard guard(in.x.device());
  const at::Tensor x = in.x.contiguous(), grad = in.grad.contiguous();
  const at::Tensor bias = in.bias ? in.bias->contiguous() : at::Tensor();
  at::Tensor grad_x = at::empty(x.sizes(), x.options());
  at::Tensor grad_bias = at::empty({bias.defined() ? x.size(0) : 0}, x.options());
  if (x.numel() == 0) return {grad_x, grad_bias.zero_()};
  RowGeluArgs a{};
  a.grad = grad.const_data_ptr();
  a.x = x.const_data_ptr();
  a.bias = bias.defined() ? bias.const_data_ptr() : nullptr;
  a.out = grad_x.mutable_data_ptr();
  a.grad_bias = bias.defined() ? grad_bias.mutable_data_ptr() : nullptr;
  a.rows = x.size(0);
  a.columns = x.size(1);
  a.tanh_form = in.tanh_form;
  check_launch(op, launch_row_gelu_backward(a, cuda_dtype(x.scalar_type()), current_stream()));
  return {grad_x, grad_bias};
}

}  // namespace

TORCH_LIBRARY_FRAGMENT(refract, m) {
  forms(m, row_bias_gelu).cuda<forward>();
  forms(m, row_bias_gelu_backward).cuda<backward>();
}

}  // namespace refract
