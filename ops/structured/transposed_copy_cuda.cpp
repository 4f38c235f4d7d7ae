// transposed_copy on CUDA tensors.
#include <ATen/ops/empty.h>
#include <torch/library.h>

#include "ops/common/dispatch.h"
#include "ops/common/launch.h"
#include "ops/structured/block_linear.h"
#include "ops/structured/transposed_copy_kernel.h"

namespace refract {
namespace {

constexpr int64_t kMostRows = int64_t{65535} * 64;  // of the grid's second dimension

at::Tensor transposed_copy_cuda(const at::Tensor& x_in, const std::optional<at::Tensor>& row_bias) {
  block_linear_op::check_matrix(x_in, row_bias);
  const bool known = !row_bias.has_value() || has_cuda_dtype(x_in.scalar_type());
  if (x_in.size(0) > kMostRows || !known) return composite::transposed_copy(x_in, row_bias);
  const c10::cuda::CUDAGuard guard(x_in.device());
  const at::Tensor x = x_in.stride(1) == 1 ? x_in : x_in.contiguous();
  at::Tensor out = at::empty({x.size(1), x.size(0)}, x.options());
  if (out.numel() == 0) return out;
  const void* in = x.const_data_ptr();
  void* to = out.mutable_data_ptr();
  if (row_bias.has_value()) {
    const at::Tensor bias = row_bias->contiguous();
    check_launch("transposed_copy",
                 launch_transposed_add(in, bias.const_data_ptr(), to, x.size(0), x.size(1),
                                       x.stride(0), cuda_dtype(x.scalar_type()), current_stream()));
  } else {
    check_launch("transposed_copy",
                 launch_transposed_copy(in, to, x.size(0), x.size(1), x.stride(0),
                                        static_cast<int>(x.element_size()), current_stream()));
  }
  return out;
}

}  // namespace

TORCH_LIBRARY_IMPL(refract, CUDA, m) { m.impl("transposed_copy", transposed_copy_cuda); }

}  // namespace refract
