// dropout on CUDA tensors: checks, memory and the launch.
#include <ATen/ops/empty.h>

#include "ops/common/define.h"
#include "ops/common/dispatch.h"
#include "ops/common/launch.h"
#include "ops/dense/activation/dropout.h"
#include "ops/dense/activation/dropout_kernel.h"

namespace refract {
namespace {

at::Tensor dropout_cuda(const DropoutInputs& in) {
  if (!has_cuda_dtype(in.x.scalar_type())) {
    return composite::dropout(in);
  }
  dropout_op::check(in);
  const c10::cuda::CUDAGuard guard(in.x.device());
  const at::Tensor x = in.x.contiguous(), clock = in.clock.contiguous();
  at::Tensor y = at::empty(x.sizes(), x.options());
  if (y.numel() == 0) return y;
  DropoutArgs a{};
  a.x = x.const_data_ptr();
  a.y = y.mutable_data_ptr();
  a.clock = clock.const_data_ptr<int64_t>();
  a.count = x.numel();
  a.key = philox_key(static_cast<uint64_t>(in.seed), static_cast<uint64_t>(in.stream));
  a.p = static_cast<float>(in.p);
  a.scale = static_cast<float>(1.0 / (1.0 - in.p));
  check_launch("dropout",
               launch_dropout(a, cuda_dtype(x.scalar_type()), multiprocessors(), current_stream()));
  return y;
}

}  // namespace

TORCH_LIBRARY_FRAGMENT(refract, m) { forms(m, dropout).cuda<dropout_cuda>(); }

}  // namespace refract
