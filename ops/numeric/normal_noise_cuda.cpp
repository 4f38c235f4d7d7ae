// normal_noise on CUDA tensors.
#include <ATen/ops/empty.h>

#include "ops/common/define.h"
#include "ops/common/launch.h"
#include "ops/numeric/normal_noise.h"
#include "ops/numeric/normal_noise_kernel.h"

namespace refract {
namespace {

at::Tensor normal_noise_cuda(const NormalNoiseInputs& in) {
  normal_noise_op::check(in);
  const c10::cuda::CUDAGuard guard(in.like.device());
  at::Tensor y = at::empty(in.like.sizes(), in.like.options().dtype(at::kFloat));
  if (y.numel() == 0) return y;
  const at::Tensor clock = in.clock.contiguous();
  const PhiloxKey key =
      philox_key(static_cast<uint64_t>(in.seed), static_cast<uint64_t>(in.stream));
  check_launch("normal_noise",
               launch_normal_noise(y.mutable_data_ptr<float>(), y.numel(), key,
                                   clock.const_data_ptr<int64_t>(), current_stream()));
  return y;
}

}  // namespace

TORCH_LIBRARY_FRAGMENT(refract, m) { forms(m, normal_noise).cuda<normal_noise_cuda>(); }

}  // namespace refract
