// rope on CUDA tensors: checks, memory and the launch.
#include <ATen/ops/empty.h>
#include <torch/library.h>

#include <limits>

#include "ops/common/dispatch.h"
#include "ops/common/launch.h"
#include "ops/dense/attention/rope.h"
#include "ops/dense/attention/rope_kernel.h"

namespace refract {
namespace {

at::Tensor rope_cuda(const at::Tensor& x_in, const at::Tensor& cos_in, const at::Tensor& sin_in,
                     int64_t position_offset, int64_t num_rotated_heads, int64_t head_dim,
                     bool inverse) {
  if (!has_cuda_dtype(x_in.scalar_type())) {
    return composite::rope(x_in, cos_in, sin_in, position_offset, num_rotated_heads, head_dim,
                           inverse);
  }
  rope_op::check(x_in, cos_in, sin_in, position_offset, num_rotated_heads, head_dim);
  const c10::cuda::CUDAGuard guard(x_in.device());
  const at::Tensor x = x_in.contiguous(), cos = cos_in.contiguous(), sin = sin_in.contiguous();
  at::Tensor y = at::empty(x.sizes(), x.options());
  if (y.numel() == 0) return y;
  const int64_t width = x.size(-1), rows = x.numel() / width;
  TORCH_CHECK(rows < std::numeric_limits<int32_t>::max(),
              "refract::rope: expected fewer than 2^31 rows, got ", rows);
  RopeArgs a{};
  a.x = x.const_data_ptr();
  a.y = y.mutable_data_ptr();
  a.cos = cos.const_data_ptr<float>() + position_offset * (head_dim / 2);
  a.sin = sin.const_data_ptr<float>() + position_offset * (head_dim / 2);
  a.rows = static_cast<uint32_t>(rows);
  a.length = static_cast<uint32_t>(x.size(-2));
  a.heads = static_cast<int>(width / head_dim);
  a.rotated = static_cast<int>(num_rotated_heads);
  a.head_dim = static_cast<int>(head_dim);
  a.sign = inverse ? -1.0f : 1.0f;
  check_launch("rope",
               launch_rope(a, cuda_dtype(x.scalar_type()), multiprocessors(), current_stream()));
  return y;
}

}  // namespace

TORCH_LIBRARY_IMPL(refract, CUDA, m) { m.impl("rope", rope_cuda); }

}  // namespace refract
