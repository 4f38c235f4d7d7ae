// rope on CUDA tensors: checks, memory and the launch.
#include <ATen/ops/empty.h>

#include <limits>

#include "ops/common/define.h"
#include "ops/common/dispatch.h"
#include "ops/common/launch.h"
#include "ops/dense/attention/rope.h"
#include "ops/dense/attention/rope_kernel.h"

namespace refract {
namespace {

at::Tensor rope_cuda(const RopeInputs& in) {
  if (!has_cuda_dtype(in.x.scalar_type())) {
    return composite::rope(in);
  }
  rope_op::check(in);
  const c10::cuda::CUDAGuard guard(in.x.device());
  const at::Tensor x = in.x.contiguous(), cos = in.cos.contiguous(), sin = in.sin.contiguous();
  at::Tensor y = at::empty(x.sizes(), x.options());
  if (y.numel() == 0) return y;
  const int64_t width = x.size(-1), rows = x.numel() / width;
  TORCH_CHECK(rows < std::numeric_limits<int32_t>::max(),
              "refract::rope: expected fewer than 2^31 rows, got ", rows);
  RopeArgs a{};
  a.x = x.const_data_ptr();
  a.y = y.mutable_data_ptr();
  a.cos = cos.const_data_ptr<float>() + in.position_offset * (in.head_dim / 2);
  a.sin = sin.const_data_ptr<float>() + in.position_offset * (in.head_dim / 2);
  a.rows = static_cast<uint32_t>(rows);
  a.length = static_cast<uint32_t>(x.size(-2));
  a.heads = static_cast<int>(width / in.head_dim);
  a.rotated = static_cast<int>(in.num_rotated_heads);
  a.head_dim = static_cast<int>(in.head_dim);
  a.sign = in.inverse ? -1.0f : 1.0f;
  check_launch("rope",
               launch_rope(a, cuda_dtype(x.scalar_type()), multiprocessors(), current_stream()));
  return y;
}

}  // namespace

TORCH_LIBRARY_FRAGMENT(refract, m) { forms(m, rope).cuda<rope_cuda>(); }

}  // namespace refract
