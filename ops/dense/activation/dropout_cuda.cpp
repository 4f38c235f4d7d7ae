// dropout on CUDA tensors: checks, memory and the launch.
#include <ATen/ops/empty.h>
#include <torch/library.h>

#include "ops/common/dispatch.h"
#include "ops/common/launch.h"
#include "ops/dense/activation/dropout.h"
#include "ops/dense/activation/dropout_kernel.h"

namespace refract {
namespace {

at::Tensor dropout_cuda(const at::Tensor& x_in, double p, int64_t seed, int64_t stream,
                        const at::Tensor& clock_in) {
  if (!has_cuda_dtype(x_in.scalar_type())) {
    return composite::dropout(x_in, p, seed, stream, clock_in);
  }
  dropout_op::check(x_in, p, clock_in);
  const c10::cuda::CUDAGuard guard(x_in.device());
  const at::Tensor x = x_in.contiguous(), clock = clock_in.contiguous();
  at::Tensor y = at::empty(x.sizes(), x.options());
  if (y.numel() == 0) return y;
  DropoutArgs a{};
  a.x = x.const_data_ptr();
  a.y = y.mutable_data_ptr();
  a.clock = clock.const_data_ptr<int64_t>();
  a.count = x.numel();
  a.key = philox_key(static_cast<uint64_t>(seed), static_cast<uint64_t>(stream));
  a.p = static_cast<float>(p);
  a.scale = static_cast<float>(1.0 / (1.0 - p));
  check_launch("dropout",
               launch_dropout(a, cuda_dtype(x.scalar_type()), multiprocessors(), current_stream()));
  return y;
}

}  // namespace

TORCH_LIBRARY_IMPL(refract, CUDA, m) { m.impl("dropout", dropout_cuda); }

}  // namespace refract
