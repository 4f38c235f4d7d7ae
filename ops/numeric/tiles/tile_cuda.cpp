// analog_inputs and analog_collect_ on CUDA tensors.
#include <ATen/ops/empty_like.h>

#include "ops/common/define.h"
#include "ops/common/dispatch.h"
#include "ops/common/launch.h"
#include "ops/numeric/tiles/tile.h"
#include "ops/numeric/tiles/tile_kernel.h"

namespace refract {
namespace {

at::Tensor inputs_cuda(const AnalogInputs& in) {
  if (!has_cuda_dtype(in.x.scalar_type()) || in.x.numel() == 0) return composite::analog_inputs(in);
  analog_op::check(in);
  const c10::cuda::CUDAGuard guard(in.x.device());
  const at::Tensor x = in.x.contiguous(), r = in.r.contiguous();
  at::Tensor u = at::empty_like(x);
  AnalogInputsArgs a{};
  a.x = x.const_data_ptr();
  a.r = r.const_data_ptr<float>();
  a.u = u.mutable_data_ptr();
  a.rows = x.size(0);
  a.columns = x.size(1);
  a.tiles = r.size(-1);
  a.tile_rows = in.tile_rows;
  a.shared = r.dim() == 1;
  a.whole = in.bits > 0;
  a.steps = static_cast<float>(analog_op::steps_of(in.bits));
  check_launch("analog_inputs",
               launch_analog_inputs(a, cuda_dtype(x.scalar_type()), current_stream()));
  return u;
}

void collect_cuda(const AnalogCollectInputs& in) {
  if (in.y.scalar_type() != at::kFloat || in.y.numel() == 0) return composite::analog_collect_(in);
  analog_op::check(in);
  const c10::cuda::CUDAGuard guard(in.y.device());
  const AnalogConverter& c = in.converter;
  const at::Tensor r = in.r.contiguous(), out = in.out.contiguous();
  at::Tensor scale, clock;
  AnalogCollectArgs a{};
  if (in.scale) {
    scale = in.scale->contiguous();
    a.scale = scale.const_data_ptr<float>();
  }
  if (c.out_noise > 0) {
    clock = in.clock->contiguous();
    a.clock = clock.const_data_ptr<int64_t>();
  }
  a.y = in.y.mutable_data_ptr<float>();
  a.z = in.z.const_data_ptr<float>();
  a.r = r.const_data_ptr<float>();
  a.out = out.const_data_ptr<float>();
  a.rows = in.y.size(0);
  a.columns = in.y.size(1);
  a.shared = r.dim() == 1;
  a.noise = static_cast<float>(c.out_noise);
  a.steps = c.bits > 0 ? static_cast<float>(analog_op::steps_of(c.bits)) : 0.0f;
  a.bound = static_cast<float>(c.bound);
  a.key = philox_key(static_cast<uint64_t>(c.seed), static_cast<uint64_t>(c.stream));
  check_launch("analog_collect_", launch_analog_collect(a, current_stream()));
}

}  // namespace

TORCH_LIBRARY_FRAGMENT(refract, m) {
  forms(m, analog_inputs).cuda<inputs_cuda>();
  forms(m, analog_collect_).cuda<collect_cuda>();
}

}  // namespace refract
