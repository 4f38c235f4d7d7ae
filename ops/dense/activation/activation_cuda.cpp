// bias_gelu and swiglu on CUDA tensors: checks, memory and launches.
#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>

#include "ops/common/define.h"
#include "ops/common/dispatch.h"
#include "ops/common/launch.h"
#include "ops/dense/activation/activation.h"
#include "ops/dense/activation/activation_kernel.h"

namespace refract {
namespace {

// Resident blocks of 256 threads that hide the memory's latency, with some to even out the end.
constexpr int kForwardBlocks = 16, kBackwardBlocks = 8;

at::Tensor forward(const char* op, Activation kind, const at::Tensor& x_in,
                   const MaybeTensor& bias_in) {
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

ActivationGradients backward(const char* op, Activation kind, const at::Tensor& grad_in,
                             const at::Tensor& x_in, const MaybeTensor& bias_in) {
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

at::Tensor bias_gelu_cuda(const BiasGeluInputs& in) {
  if (!has_cuda_dtype(in.x.scalar_type())) return composite::bias_gelu(in);
  return forward("bias_gelu", gelu_kind(in.tanh_form), in.x, in.bias);
}

at::Tensor swiglu_cuda(const SwigluInputs& in) {
  if (!has_cuda_dtype(in.x.scalar_type())) return composite::swiglu(in);
  return forward("swiglu", Activation::kSwiglu, in.x, in.bias);
}

ActivationGradients bias_gelu_backward_cuda(const BiasGeluBackwardInputs& in) {
  if (!has_cuda_dtype(in.x.scalar_type())) {
    return composite::bias_gelu_backward(in);
  }
  return backward("bias_gelu_backward", gelu_kind(in.tanh_form), in.grad, in.x, in.bias);
}

ActivationGradients swiglu_backward_cuda(const SwigluBackwardInputs& in) {
  if (!has_cuda_dtype(in.x.scalar_type())) return composite::swiglu_backward(in);
  return backward("swiglu_backward", Activation::kSwiglu, in.grad, in.x, in.bias);
}

}  // namespace

TORCH_LIBRARY_FRAGMENT(refract, m) {
  forms(m, bias_gelu).cuda<bias_gelu_cuda>();
  forms(m, swiglu).cuda<swiglu_cuda>();
  forms(m, bias_gelu_backward).cuda<bias_gelu_backward_cuda>();
  forms(m, swiglu_backward).cuda<swiglu_backward_cuda>();
}

}  // namespace refract
