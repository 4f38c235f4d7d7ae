// bias_gelu and swiglu on CUDA tensors: checks, memory and launches.
#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>
#include <torch/library.h>

#include "ops/common/dispatch.h"
#include "ops/common/launch.h"
#include "ops/dense/activation/activation.h"
#include "ops/dense/activation/activation_kernel.h"

namespace refract {
namespace {

// Resident blocks of 256 threads that hide the memory's latency, with some to even out the end.
constexpr int kForwardBlocks = 16, kBackwardBlocks = 8;

at::Tensor forward(const char* op, Activation kind, const at::Tensor& x_in,
                   const std::optional<at::Tensor>& bias_in) {
  const int inputs = kind == Activation::kSwiglu ? 2 : 1;
  activation_op::check(op, x_in, bias_in, inputs == 2);
  const c10::cuda::CUDAGuard guard(x_in.device());
  const at::Tensor x = x_in.contiguous();
  const at::Tensor bias = bias_in ? bias_in->contiguous() : at::Tensor();
  auto sizes = x.sizes().vec();
  sizes.back() /= inputs;
  at::Tensor y = at::empty(sizes, x.options());
  if (y.numel() == 0) return y;
  ActivationArgs a{};
  a.x = x.const_data_ptr();
  a.bias = bias.defined() ? bias.const_data_ptr() : nullptr;
  a.out = y.mutable_data_ptr();
  a.width = sizes.back();
  a.rows = y.numel() / a.width;
  const Dtype dtype = cuda_dtype(x.scalar_type());
  a.parts = activation_parts(a, dtype, multiprocessors(), kForwardBlocks);
  check_launch(op, launch_activation_forward(a, kind, dtype, current_stream()));
  return y;
}

std::tuple<at::Tensor, at::Tensor> backward(const char* op, Activation kind,
                                            const at::Tensor& grad_in, const at::Tensor& x_in,
                                            const std::optional<at::Tensor>& bias_in) {
  const int inputs = kind == Activation::kSwiglu ? 2 : 1;
  activation_op::check_backward(op, grad_in, x_in, bias_in, inputs == 2);
  const c10::cuda::CUDAGuard guard(x_in.device());
  const at::Tensor x = x_in.contiguous(), grad = grad_in.contiguous();
  const at::Tensor bias = bias_in ? bias_in->contiguous() : at::Tensor();
  const int64_t columns = x.size(-1);
  at::Tensor grad_x = at::empty(x.sizes(), x.options());
  if (x.numel() == 0) return {grad_x, at::zeros({bias.defined() ? columns : 0}, x.options())};
  at::Tensor grad_bias = at::empty({bias.defined() ? columns : 0}, x.options());
  at::Tensor partial;
  ActivationArgs a{};
  a.grad = grad.const_data_ptr();
  a.x = x.const_data_ptr();
  a.bias = bias.defined() ? bias.const_data_ptr() : nullptr;
  a.out = grad_x.mutable_data_ptr();
  a.width = columns / inputs;
  a.rows = grad.numel() / a.width;
  const Dtype dtype = cuda_dtype(x.scalar_type());
  a.parts = activation_parts(a, dtype, multiprocessors(), kBackwardBlocks);
  if (bias.defined()) {
    partial = at::empty({a.parts, columns}, x.options().dtype(at::kFloat));
    a.partial = partial.mutable_data_ptr<float>();
    a.grad_bias = grad_bias.mutable_data_ptr();
  }
  check_launch(op, launch_activation_backward(a, kind, dtype, current_stream()));
  return {grad_x, grad_bias};
}

Activation gelu_kind(bool tanh_form) {
  return tanh_form ? Activation::kGeluTanh : Activation::kGeluErf;
}

at::Tensor bias_gelu_cuda(const at::Tensor& x, const std::optional<at::Tensor>& bias,
                          bool tanh_form) {
  if (!has_cuda_dtype(x.scalar_type())) return composite::bias_gelu(x, bias, tanh_form);
  return forward("bias_gelu", gelu_kind(tanh_form), x, bias);
}

at::Tensor swiglu_cuda(const at::Tensor& x, const std::optional<at::Tensor>& bias) {
  if (!has_cuda_dtype(x.scalar_type())) return composite::swiglu(x, bias);
  return forward("swiglu", Activation::kSwiglu, x, bias);
}

std::tuple<at::Tensor, at::Tensor> bias_gelu_backward_cuda(const at::Tensor& grad,
                                                           const at::Tensor& x,
                                                           const std::optional<at::Tensor>& bias,
                                                           bool tanh_form) {
  if (!has_cuda_dtype(x.scalar_type())) {
    return composite::bias_gelu_backward(grad, x, bias, tanh_form);
  }
  return backward("bias_gelu_backward", gelu_kind(tanh_form), grad, x, bias);
}

std::tuple<at::Tensor, at::Tensor> swiglu_backward_cuda(const at::Tensor& grad, const at::Tensor& x,
                                                        const std::optional<at::Tensor>& bias) {
  if (!has_cuda_dtype(x.scalar_type())) return composite::swiglu_backward(grad, x, bias);
  return backward("swiglu_backward", Activation::kSwiglu, grad, x, bias);
}

}  // namespace

TORCH_LIBRARY_IMPL(refract, CUDA, m) {
  m.impl("bias_gelu", bias_gelu_cuda);
  m.impl("swiglu", swiglu_cuda);
  m.impl("bias_gelu_backward", bias_gelu_backward_cuda);
  m.impl("swiglu_backward", swiglu_backward_cuda);
}

}  // namespace refract
