#include <ATen/ops/empty.h>

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

void adamw_cuda(const at::Tensor& master, const std::optional<at::Tensor>& compute,
                const at::Tensor& grads, const at::Tensor& exp_avg, const at::Tensor& exp_avg_sq,
                const at::Tensor& hyper, const at::Tensor& control, double beta1, double beta2,
                double eps, double weight_decay, int64_t n_decay, bool zero_grads) {
  optimizer::check_adamw(master, compute, grads, exp_avg, exp_avg_sq, hyper, control, n_decay);
  const c10::cuda::CUDAGuard device(master.device());
  const bool has_compute = compute && compute->defined();
  const AdamWArrays arrays{master.mutable_data_ptr<float>(),
                           has_compute ? compute->mutable_data_ptr() : nullptr,
                           has_compute ? cuda_dtype(compute->scalar_type()) : Dtype::kFloat32,
                           grads.mutable_data_ptr(),
                           cuda_dtype(grads.scalar_type()),
                           exp_avg.mutable_data_ptr<float>(),
                           exp_avg_sq.mutable_data_ptr<float>(),
                           master.numel(),
                           n_decay,
                           hyper.const_data_ptr<float>(),
                           control.const_data_ptr<float>()};
  check_aligned("adamw_",
                {arrays.master, arrays.compute, arrays.grads, arrays.exp_avg, arrays.exp_avg_sq});
  const AdamWScalars scalars{static_cast<float>(1 - beta1),    static_cast<float>(beta2),
                             static_cast<float>(1 - beta2),    static_cast<float>(eps),
                             static_cast<float>(weight_decay), zero_grads};
  check_launch("adamw_", launch_adamw(arrays, scalars, current_stream()));
}

at::Tensor global_norm_cuda(const at::Tensor& flat_in) {
  optimizer::check_norm(flat_in);
  const c10::cuda::CUDAGuard device(flat_in.device());
  at::Tensor flat = flat_in.detach().contiguous();
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

void step_control_cuda(const at::Tensor& control, const at::Tensor& norm, const at::Tensor& loss,
                       double max_norm, const at::Tensor& step) {
  optimizer::check_control(control, norm, loss, step);
  const c10::cuda::CUDAGuard device(control.device());
  check_launch("step_control_",
               launch_step_control(control.mutable_data_ptr<float>(), norm.const_data_ptr<float>(),
                                   loss.const_data_ptr<float>(), static_cast<float>(max_norm),
                                   step.const_data_ptr<int64_t>(), current_stream()));
}

void accumulate_cuda(const at::Tensor& sum, const at::Tensor& part) {
  optimizer::check_accumulate(sum, part);
  const c10::cuda::CUDAGuard device(sum.device());
  check_aligned("accumulate_", {sum.const_data_ptr(), part.const_data_ptr()});
  check_launch("accumulate_",
               launch_accumulate(sum.mutable_data_ptr<float>(), cuda_dtype(part.scalar_type()),
                                 part.mutable_data_ptr(), sum.numel(), current_stream()));
}

}  // namespace

TORCH_LIBRARY_IMPL(refract, CUDA, m) {
  m.impl("adamw_", &adamw_cuda);
  m.impl("global_norm", &global_norm_cuda);
  m.impl("step_control_", &step_control_cuda);
  m.impl("accumulate_", &accumulate_cuda);
}

}  // namespace refract
