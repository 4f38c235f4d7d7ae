// optical_quantize and optical_observe_ on CUDA tensors: checks, memory and launches.
#include <ATen/ops/empty.h>

#include "ops/common/define.h"
#include "ops/common/dispatch.h"
#include "ops/common/launch.h"
#include "ops/optical/matmul/product_kernel.h"
#include "ops/optical/quantize/quantize.h"

namespace refract {
namespace {

// Launches the pass that sees x; float [kOpticalParts, 2].
at::Tensor seen_of(const char* op, const at::Tensor& x, const at::Tensor& range, bool only_unset) {
  at::Tensor seen = at::empty({kOpticalParts, 2}, x.options().dtype(at::kFloat));
  OpticalSeenArgs a{};
  a.x = x.const_data_ptr();
  a.members.count = 1;
  a.members.begin[1] = x.numel();
  a.members.range[0] = range.mutable_data_ptr<float>();
  a.width = 1;
  a.only_unset = only_unset;
  a.seen = seen.mutable_data_ptr<float>();
  check_launch(op, launch_optical_seen(a, cuda_dtype(x.scalar_type()), current_stream()));
  return seen;
}

at::Tensor quantize_cuda(const OpticalQuantizeInputs& in) {
  const char* op = "optical_quantize";
  if (!has_cuda_dtype(in.x.scalar_type()) || in.x.numel() == 0) {
    return composite::optical_quantize(in);
  }
  optical_op::check_quantize(in);
  const c10::cuda::CUDAGuard guard(in.x.device());
  const at::Tensor x = in.x.contiguous();
  const at::Tensor clock = in.noise.clock.has_value() ? in.noise.clock->contiguous() : at::Tensor();
  at::Tensor y = at::empty(x.sizes(), x.options());
  const at::Tensor seen = seen_of(op, x, in.range, true);
  OpticalQuantizeArgs a{};
  a.x = x.const_data_ptr();
  a.y = y.mutable_data_ptr();
  a.range = in.range.const_data_ptr<float>();
  a.seen = seen.const_data_ptr<float>();
  a.count = x.numel();
  a.slice = x.dim() == 0 ? 1 : x.numel() / x.size(0);
  a.levels = static_cast<int>(in.levels);
  a.lut_min = static_cast<float>(in.lut_min);
  a.draws = in.noise.on && !in.noise.shared.has_value();
  a.shared = static_cast<float>(in.noise.shared.value_or(0));
  a.key = philox_key(static_cast<uint64_t>(in.noise.seed), static_cast<uint64_t>(in.noise.stream));
  a.clock = clock.defined() ? clock.const_data_ptr<int64_t>() : nullptr;
  check_launch(op, launch_optical_quantize(a, cuda_dtype(x.scalar_type()), multiprocessors(),
                                           current_stream()));
  return y;
}

void observe_cuda(const OpticalObserveInputs& in) {
  const char* op = "optical_observe_";
  optical_op::check_observe(in);
  if (in.x.numel() == 0) return;
  if (!has_cuda_dtype(in.x.scalar_type()) || !in.quantiles.empty()) {
    composite::optical_move_(in.range, in.range, composite::optical_seen(in.x, in.quantiles),
                             in.smooth);
    return;
  }
  const c10::cuda::CUDAGuard guard(in.x.device());
  const at::Tensor seen = seen_of(op, in.x.contiguous(), in.range, false);
  check_launch(op,
               launch_optical_move(in.range.mutable_data_ptr<float>(), seen.const_data_ptr<float>(),
                                   kOpticalParts, static_cast<float>(in.smooth), current_stream()));
}

}  // namespace

TORCH_LIBRARY_FRAGMENT(refract, m) {
  forms(m, optical_quantize).cuda<quantize_cuda>();
  forms(m, optical_observe_).cuda<observe_cuda>();
}

}  // namespace refract
