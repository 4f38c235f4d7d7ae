// number_quantize on CUDA tensors.
#include <ATen/ops/empty_like.h>

#include <algorithm>

#include "ops/common/define.h"
#include "ops/common/dispatch.h"
#include "ops/common/launch.h"
#include "ops/numeric/element.h"
#include "ops/numeric/quantize_kernel.h"

namespace refract {
namespace {

static_assert(sizeof(numeric::Limits) == 2 * sizeof(float));

at::Tensor number_quantize_cuda(const NumberQuantizeInputs& in) {
  if (!has_cuda_dtype(in.x.scalar_type()) || in.x.numel() == 0)
    return composite::number_quantize(in);
  number_quantize_op::check(in);
  const c10::cuda::CUDAGuard guard(in.x.device());
  const at::Tensor x = in.x.contiguous(), limits = number_quantize_op::tensor_limits(in);
  at::Tensor y = at::empty_like(x), clock;
  NumberArgs a{};
  a.x = x.const_data_ptr();
  a.y = y.mutable_data_ptr();
  if (limits.defined())
    a.tensor = reinterpret_cast<const numeric::Limits*>(limits.const_data_ptr<float>());
  a.format = numeric::element_of(in.format);
  if (a.format.rounding == numeric::Rounding::kStochastic) {
    clock = in.clock->contiguous();
    a.clock = clock.const_data_ptr<int64_t>();
  }
  a.columns = x.size(-1);
  a.rows = in.columns ? x.size(-2) : x.numel() / a.columns;
  a.matrices = x.numel() / (a.rows * a.columns);
  const int64_t line = in.columns ? a.rows : a.columns;
  a.block = in.format.block > 0 ? std::min(in.format.block, line) : line;
  a.along_columns = in.columns;
  if (a.format.scaling == numeric::Scaling::kNone) a.block = std::min<int64_t>(32, line);
  a.of_tensor = in.format.block == -1;
  a.key = philox_key(static_cast<uint64_t>(in.seed), static_cast<uint64_t>(in.stream));
  check_launch("number_quantize",
               launch_number_quantize(a, cuda_dtype(x.scalar_type()), current_stream()));
  return y;
}

}  // namespace

TORCH_LIBRARY_FRAGMENT(refract, m) { forms(m, number_quantize).cuda<number_quantize_cuda>(); }

}  // namespace refract
