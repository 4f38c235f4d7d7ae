// bit_flip on CUDA tensors.
#include <ATen/ops/empty_like.h>

#include "ops/common/define.h"
#include "ops/common/dispatch.h"
#include "ops/common/launch.h"
#include "ops/numeric/bit_flip_kernel.h"
#include "ops/numeric/flips.h"

namespace refract {
namespace {

at::Tensor flip(const BitFlipInputs& in, const at::Tensor& grad) {
  const c10::cuda::CUDAGuard guard(in.x.device());
  const at::Tensor x = in.x.contiguous(), clock = in.clock.contiguous();
  at::Tensor y = at::empty_like(x);
  if (y.numel() == 0) return y;
  BitFlipArgs a{};
  a.x = x.const_data_ptr();
  if (grad.defined()) a.grad = grad.const_data_ptr();
  a.y = y.mutable_data_ptr();
  a.clock = clock.const_data_ptr<int64_t>();
  a.count = x.numel();
  a.key = philox_key(static_cast<uint64_t>(in.seed), static_cast<uint64_t>(in.stream));
  a.flips = numeric::flips_of(in);
  if (is_rare(a.flips)) {
    a.rare =
        numeric::rare_flips_of(numeric::flip_type(numeric::flipped_type(x.scalar_type())), a.flips);
  }
  check_launch("bit_flip", launch_bit_flip(a, cuda_dtype(x.scalar_type()), current_stream()));
  return y;
}

at::Tensor bit_flip_cuda(const BitFlipInputs& in) {
  if (!has_cuda_dtype(in.x.scalar_type())) return composite::bit_flip(in);
  bit_flip_op::check(in);
  return flip(in, {});
}

at::Tensor bit_flip_backward_cuda(const BitFlipBackwardInputs& in) {
  if (!has_cuda_dtype(in.x.scalar_type())) return composite::bit_flip_backward(in);
  bit_flip_op::check_backward(in);
  return flip(bit_flip_op::forward_of(in), in.grad.contiguous());
}

}  // namespace

TORCH_LIBRARY_FRAGMENT(refract, m) {
  forms(m, bit_flip).cuda<bit_flip_cuda>();
  forms(m, bit_flip_backward).cuda<bit_flip_backward_cuda>();
}

}  // namespace refract
