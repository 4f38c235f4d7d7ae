#include <ATen/core/LegacyTypeDispatch.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>

#include "ops/common/launch.h"
#include "ops/fused/activation.h"
#include "ops/fused/split.h"
#include "ops/fused/split_kernel.h"

namespace refract {
namespace {

at::Tensor split(BeforeSplit before, const at::Tensor& x_in) {
  at::AutoDispatchBelowADInplaceOrView guard;
  TORCH_CHECK(x_in.scalar_type() == at::kFloat && x_in.dim() >= 1,
              "refract::split_bfloat16: expected x to be float32 with a dimension or more, got ",
              x_in.scalar_type(), " of shape ", x_in.sizes());
  const c10::cuda::CUDAGuard device(x_in.device());
  const at::Tensor x = x_in.contiguous();
  const int64_t width = x.size(-1);
  if (width % 4 != 0 || reinterpret_cast<uintptr_t>(x.const_data_ptr()) % 16 != 0) {
    const at::Tensor y = before == BeforeSplit::kNothing
                             ? x
                             : bias_gelu(x, std::nullopt, before == BeforeSplit::kGeluTanh);
    const at::Tensor high = y.to(at::kBFloat16);
    return at::cat({high, high, y.sub(high.to(at::kFloat)).to(at::kBFloat16)}, -1);
  }
  std::vector<int64_t> sizes = x.sizes().vec();
  sizes.back() *= 3;
  at::Tensor out = at::empty(sizes, x.options().dtype(at::kBFloat16));
  check_launch(
      "split_bfloat16",
      launch_split_bfloat16(before, x.const_data_ptr<float>(), out.mutable_data_ptr(),
                            x.numel() / std::max<int64_t>(width, 1), width, current_stream()));
  return out;
}

at::Tensor split_cuda(const at::Tensor& x) { return split(BeforeSplit::kNothing, x); }

at::Tensor split_gelu_cuda(const at::Tensor& x, bool tanh_form) {
  return split(tanh_form ? BeforeSplit::kGeluTanh : BeforeSplit::kGeluErf, x);
}

}  // namespace

TORCH_LIBRARY_IMPL(refract, CUDA, m) {
  m.impl("split_bfloat16", &split_cuda);
  m.impl("split_gelu_bfloat16", &split_gelu_cuda);
}

}  // namespace refract
