// transposed_copy on CUDA tensors.
#include <ATen/ops/empty.h>

#include "ops/common/define.h"
#include "ops/common/dispatch.h"
#include "ops/common/launch.h"
#include "ops/structured/transposed_copy.h"
#include "ops/structured/transposed_copy_kernel.h"

namespace refract {
namespace {

constexpr int64_t kMostRows = int64_t{65535} * 64;  // of the grid's second dimension

at::Tensor transposed_copy_cuda(const TransposedCopyInputs& in) {
  transposed_copy_op::check(in);
  const bool known = !in.row_bias.has_value() || has_cuda_dtype(in.x.scalar_type());
  if (in.x.size(0) > kMostRows || !known) return composite::transposed_copy(in);
  const c10::cuda::CUDAGuard guard(in.x.device());
  const at::Tensor x = in.x.stride(1) == 1 ? in.x : in.x.contiguous();
  at::Tensor out = at::empty({x.size(1), x.size(0)}, x.options());
  if (out.numel() == 0) return out;
  const void* from = x.const_data_ptr();
  void* to = out.mutable_data_ptr();
  if (in.row_bias.has_value()) {
    const at::Tensor bias = in.row_bias->contiguous();
    check_launch("transposed_copy",
                 launch_transposed_add(from, bias.const_data_ptr(), to, x.size(0), x.size(1),
                                       x.stride(0), cuda_dtype(x.scalar_type()), current_stream()));
  } else {
    check_launch("transposed_copy",
                 launch_transposed_copy(from, to, x.size(0), x.size(1), x.stride(0),
                                        static_cast<int>(x.element_size()), current_stream()));
  }
  return out;
}

}  // namespace

TORCH_LIBRARY_FRAGMENT(refract, m) { forms(m, transposed_copy).cuda<transposed_copy_cuda>(); }

}  // namespace refract
