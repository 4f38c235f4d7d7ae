// transposed_copy on CUDA tensors.
#include <ATen/ops/empty.h>
#include <torch/library.h>

#include "ops/common/launch.h"
#include "ops/structured/block_linear.h"
#include "ops/structured/transposed_copy_kernel.h"

namespace refract {
namespace {

constexpr int64_t kMostRows = int64_t{65535} * 64;  // of the grid's second dimension

at::Tensor transposed_copy_cuda(const at::Tensor& x_in) {
  block_linear_op::check_matrix(x_in);
  const auto size = x_in.element_size();
  if (x_in.size(0) > kMostRows || (size != 2 && size != 4 && size != 8)) {
    return composite::transposed_copy(x_in);
  }
  const c10::cuda::CUDAGuard guard(x_in.device());
  const at::Tensor x = x_in.stride(1) == 1 ? x_in : x_in.contiguous();
  at::Tensor out = at::empty({x.size(1), x.size(0)}, x.options());
  if (out.numel() == 0) return out;
  check_launch("transposed_copy", launch_transposed_copy(x.const_data_ptr(), out.mutable_data_ptr(),
                                                         x.size(0), x.size(1), x.stride(0),
                                                         static_cast<int>(size), current_stream()));
  return out;
}

}  // namespace

TORCH_LIBRARY_IMPL(refract, CUDA, m) { m.impl("transposed_copy", transposed_copy_cuda); }

}  // namespace refract
