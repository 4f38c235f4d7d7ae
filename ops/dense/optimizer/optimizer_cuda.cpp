#include <ATen/ops/empty.h>

#include "ops/common/define.h"
#include "ops/common/dispatch.h"
#include "ops/common/launch.h"
#include "ops/dense/optimizer/optimizer.h"
#include "ops/dense/optimizer/optimizer_kernel.h"

namespace refract {
namespace {

// Vector loads want 16-byte boundaries. An arena has them; a slice of one at an odd offset has not.
void check_aligned(const char* op, std::initializer_list<const void*> pointers) {
  for (const void* p : pointers) {
    TORCH_CHECK(reinterpret_cast<uintptr_t>(p) % 16 == 0, "refract::", op,
                ": expected tensors that start at a 16-byte boundary; cut arenas at multiples of 8 "
                "elements");
  }
}

void adamw_cuda(const AdamWInputs& in) {
  optimizer::check_adamw(in);
  const c10::cuda::CUDAGuard device(in.master.device());
  const bool has_compute = in.compute && in.compute->defined();
  const AdamWArrays arrays{in.master.mutable_data_ptr<float>(),
                           has_compute ? in.compute->mutable_data_ptr() : nullptr,
                           has_compute ? cuda_dtype(in.compute->scalar_type()) : Dtype::kFloat32,
                           in.grads.mutable_data_ptr(),
                           cuda_dtype(in.grads.scalar_type()),
                           in.exp_avg.mutable_data_ptr<float>(),
                           in.exp_avg_sq.mutable_data_ptr<float>(),
                           in.master.numel(),
                           in.settings.n_decay,
                           in.hyper.const_data_ptr<float>(),
                           in.control.const_data_ptr<float>()};
  check_aligned("adamw_",
                {arrays.master, arrays.compute, arrays.grads, arrays.exp_avg, arrays.exp_avg_sq});
  const AdamWScalars scalars{
      static_cast<float>(1 - in.settings.beta1),    static_cast<float>(in.settings.beta2),
      static_cast<float>(1 - in.settings.beta2),    static_cast<float>(in.settings.eps),
      static_cast<float>(in.settings.weight_decay), in.settings.zero_grads};
  check_launch("adamw_", launch_adamw(arrays, scalars, current_stream()));
}

at::Tensor global_norm_cuda(const GlobalNormInputs& in) {
  optimizer::check_norm(in);
  const c10::cuda::CUDAGuard device(in.flat.device());
  at::Tensor flat = in.flat.detach().contiguous();
  if (reinterpret_cast<uintptr_t>(flat.const_data_ptr()) % 16 != 0) flat = flat.clone();
  at::Tensor norm = at::empty({}, flat.options().dtype(at::kFloat));
  const at::Tensor partial =
      at::empty({norm_partials(flat.numel())}, flat.options().dtype(at::kDouble));
  check_launch("global_norm",
               launch_global_norm(cuda_dtype(flat.scalar_type()), flat.const_data_ptr(),
                                  flat.numel(), partial.mutable_data_ptr<double>(),
                                  norm.mutable_data_ptr<float>(), current_stream()));
  return norm;
}

void step_control_cuda(const StepControlInputs& in) {
  optimizer::check_control(in);
  const c10::cuda::CUDAGuard device(in.control.device());
  check_launch(
      "step_control_",
      launch_step_control(in.control.mutable_data_ptr<float>(), in.norm.const_data_ptr<float>(),
                          in.loss.const_data_ptr<float>(), static_cast<float>(in.max_norm),
                          in.step.const_data_ptr<int64_t>(), current_stream()));
}

void accumulate_cuda(const AccumulateInputs& in) {
  optimizer::check_accumulate(in);
  const c10::cuda::CUDAGuard device(in.sum.device());
  check_aligned("accumulate_", {in.sum.const_data_ptr(), in.part.const_data_ptr()});
  check_launch(
      "accumulate_",
      launch_accumulate(in.sum.mutable_data_ptr<float>(), cuda_dtype(in.part.scalar_type()),
                        in.part.mutable_data_ptr(), in.sum.numel(), current_stream()));
}

}  // namespace

TORCH_LIBRARY_FRAGMENT(refract, m) {
  forms(m, adamw_).cuda<adamw_cuda>();
  forms(m, global_norm).cuda<global_norm_cuda>();
  forms(m, step_control_).cuda<step_control_cuda>();
  forms(m, accumulate_).cuda<accumulate_cuda>();
}

}  // namespace refract
