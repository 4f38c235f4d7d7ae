// row_bias_gelu on CUDA tensors.
#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>
#include <torch/library.h>

#include "ops/common/check.h"
#include "ops/common/dispatch.h"
#include "ops/common/launch.h"
#include "ops/structured/row_bias_gelu.h"
#include "ops/structured/row_bias_gelu_kernel.h"

namespace refract {
namespace {

at::Tensor forward(const at::Tensor& x_in, const std::optional<at::Tensor>& bias_in,
                   bool tanh_form) {
  row_gelu_op::check("row_bias_gelu", x_in, bias_in);
  if (!has_cuda_dtype(x_in.scalar_type())) {
    return composite::row_bias_gelu(x_in, bias_in, tanh_form);
  }
  const c10::cuda::CUDAGuard guard(x_in.device());
  const at::Tensor x = x_in.contiguous();
  const at::Tensor bias = bias_in ? bias_in->contiguous() : at::Tensor();
  at::Tensor y = at::empty(x.sizes(), x.options());
  if (y.numel() == 0) return y;
  RowGeluArgs a{};
  a.x = x.const_data_ptr();
  a.bias = bias.defined() ? bias.const_data_ptr() : nullptr;
  a.out = y.mutable_data_ptr();
  a.rows = x.size(0);
  a.columns = x.size(1);
  a.tanh_form = tanh_form;
  check_launch("row_bias_gelu",
               launch_row_gelu_forward(a, cuda_dtype(x.scalar_type()), current_stream()));
  return y;
}

std::tuple<at::Tensor, at::Tensor> backward(const at::Tensor& grad_in, const at::Tensor& x_in,
                                            const std::optional<at::Tensor>& bias_in,
                                            bool tanh_form) {
  const char* op = "row_bias_gelu_backward";
  row_gelu_op::check(op, x_in, bias_in);
  check_like(op, "grad", grad_in, "x", x_in);
  check_same_shape(op, "grad", grad_in, "x", x_in);
  if (!has_cuda_dtype(x_in.scalar_type())) {
    return composite::row_bias_gelu_backward(grad_in, x_in, bias_in, tanh_form);
  }
  const c10::cuda::CUDAGuard guard(x_in.device());
  const at::Tensor x = x_in.contiguous(), grad = grad_in.contiguous();
  const at::Tensor bias = bias_in ? bias_in->contiguous() : at::Tensor();
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
  a.tanh_form = tanh_form;
  check_launch(op, launch_row_gelu_backward(a, cuda_dtype(x.scalar_type()), current_stream()));
  return {grad_x, grad_bias};
}

}  // namespace

TORCH_LIBRARY_IMPL(refract, CUDA, m) {
  m.impl("row_bias_gelu", forward);
  m.impl("row_bias_gelu_backward", backward);
}

}  // namespace refract
