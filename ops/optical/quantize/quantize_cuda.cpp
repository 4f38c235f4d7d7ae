// optical_quantize and optical_observe_ on CUDA tensors: checks, memory and launches.
#include <ATen/ops/empty.h>
#include <torch/library.h>

#include "ops/common/check.h"
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

at::Tensor quantize_cuda(const at::Tensor& x_in, const at::Tensor& range, int64_t levels,
                         double lut_min, bool noise, std::optional<double> shared_noise,
                         const std::optional<at::Tensor>& clock_in, int64_t seed, int64_t stream) {
  const char* op = "optical_quantize";
  if (!has_cuda_dtype(x_in.scalar_type()) || x_in.numel() == 0) {
    return composite::optical_quantize(x_in, range, levels, lut_min, noise, shared_noise, clock_in,
                                       seed, stream);
  }
  optical_op::check_levels(op, levels, lut_min);
  optical_op::check_range(op, "range", range, x_in);
  optical_op::check_clock(op, clock_in, x_in);
  const c10::cuda::CUDAGuard guard(x_in.device());
  const at::Tensor x = x_in.contiguous();
  const at::Tensor clock = clock_in.has_value() ? clock_in->contiguous() : at::Tensor();
  at::Tensor y = at::empty(x.sizes(), x.options());
  const at::Tensor seen = seen_of(op, x, range, true);
  OpticalQuantizeArgs a{};
  a.x = x.const_data_ptr();
  a.y = y.mutable_data_ptr();
  a.range = range.const_data_ptr<float>();
  a.seen = seen.const_data_ptr<float>();
  a.count = x.numel();
  a.slice = x.dim() == 0 ? 1 : x.numel() / x.size(0);
  a.levels = static_cast<int>(levels);
  a.lut_min = static_cast<float>(lut_min);
  a.draws = noise && !shared_noise.has_value();
  a.shared = static_cast<float>(shared_noise.value_or(0));
  a.key = philox_key(static_cast<uint64_t>(seed), static_cast<uint64_t>(stream));
  a.clock = clock.defined() ? clock.const_data_ptr<int64_t>() : nullptr;
  check_launch(op, launch_optical_quantize(a, cuda_dtype(x.scalar_type()), multiprocessors(),
                                           current_stream()));
  return y;
}

void observe_cuda(const at::Tensor& range, const at::Tensor& x_in, double smooth,
                  at::ArrayRef<double> quantiles) {
  const char* op = "optical_observe_";
  optical_op::check_observe(range, x_in, smooth, quantiles);
  if (x_in.numel() == 0) return;
  if (!has_cuda_dtype(x_in.scalar_type()) || !quantiles.empty()) {
    composite::optical_move_(range, range, composite::optical_seen(x_in, quantiles), smooth);
    return;
  }
  const c10::cuda::CUDAGuard guard(x_in.device());
  const at::Tensor seen = seen_of(op, x_in.contiguous(), range, false);
  check_launch(op,
               launch_optical_move(range.mutable_data_ptr<float>(), seen.const_data_ptr<float>(),
                                   kOpticalParts, static_cast<float>(smooth), current_stream()));
}

}  // namespace

TORCH_LIBRARY_IMPL(refract, CUDA, m) {
  m.impl("optical_quantize", quantize_cuda);
  m.impl("optical_observe_", observe_cuda);
}

}  // namespace refract
