#include "ops/dense/optimizer/optimizer.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/isfinite.h>
#include <ATen/ops/ones_like.h>
#include <ATen/ops/where.h>
#include <ATen/ops/zeros_like.h>

#include "ops/common/check.h"
#include "ops/common/define.h"
#include "ops/common/dispatch.h"

namespace refract {
namespace optimizer {
namespace {

void check_arena(const char* op, const char* name, const at::Tensor& t, const at::Tensor& like) {
  TORCH_CHECK(
      t.dim() == 1 && t.size(0) == like.size(0) && t.is_contiguous() && t.device() == like.device(),
      "refract::", op, ": expected ", name, " contiguous of shape [", like.numel(), "] on ",
      like.device(), ", got ", t.sizes(), " on ", t.device());
}

void check_fp32(const char* op, const char* name, const at::Tensor& t) {
  TORCH_CHECK(t.scalar_type() == at::kFloat, "refract::", op, ": expected ", name,
              " to be float32, got ", t.scalar_type());
}

void check_small(const char* op, const char* name, const at::Tensor& t, int64_t elements,
                 const at::Tensor& like) {
  TORCH_CHECK(t.numel() == elements && t.is_contiguous() && t.device() == like.device(),
              "refract::", op, ": expected ", name, " of ", elements, " elements on ",
              like.device(), ", got ", t.sizes(), " on ", t.device());
}

}  // namespace

void check_adamw(const AdamWInputs& in) {
  constexpr const char* op = "adamw_";
  TORCH_CHECK(in.master.dim() == 1, "refract::", op, ": expected master of shape [n], got ",
              in.master.sizes());
  check_arena(op, "master", in.master, in.master);
  check_arena(op, "grads", in.grads, in.master);
  check_arena(op, "exp_avg", in.exp_avg, in.master);
  check_arena(op, "exp_avg_sq", in.exp_avg_sq, in.master);
  check_fp32(op, "master", in.master);
  check_fp32(op, "exp_avg", in.exp_avg);
  check_fp32(op, "exp_avg_sq", in.exp_avg_sq);
  check_fp32(op, "hyper", in.hyper);
  check_fp32(op, "control", in.control);
  check_small(op, "hyper", in.hyper, 4, in.master);
  check_small(op, "control", in.control, 4, in.master);
  TORCH_CHECK(has_cuda_dtype(in.grads.scalar_type()), "refract::", op,
              ": expected grads to be float32, bfloat16 or float16, got ", in.grads.scalar_type());
  if (in.compute && in.compute->defined()) {
    check_arena(op, "compute", *in.compute, in.master);
    TORCH_CHECK(has_cuda_dtype(in.compute->scalar_type()), "refract::", op,
                ": expected compute to be float32, bfloat16 or float16, got ",
                in.compute->scalar_type());
  }
  TORCH_CHECK(in.settings.n_decay >= 0 && in.settings.n_decay <= in.master.numel(), "refract::", op,
              ": expected n_decay in [0, ", in.master.numel(), "], got ", in.settings.n_decay);
}

void check_norm(const GlobalNormInputs& in) {
  TORCH_CHECK(has_cuda_dtype(in.flat.scalar_type()),
              "refract::global_norm: expected float32, bfloat16 or float16, got ",
              in.flat.scalar_type());
}

void check_control(const StepControlInputs& in) {
  constexpr const char* op = "step_control_";
  check_fp32(op, "control", in.control);
  check_fp32(op, "norm", in.norm);
  check_fp32(op, "loss", in.loss);
  check_small(op, "control", in.control, 4, in.control);
  check_small(op, "norm", in.norm, 1, in.control);
  check_small(op, "loss", in.loss, 1, in.control);
  check_small(op, "step", in.step, 1, in.control);
  TORCH_CHECK(in.step.scalar_type() == at::kLong, "refract::", op,
              ": expected step to be int64, got ", in.step.scalar_type());
}

void check_accumulate(const AccumulateInputs& in) {
  constexpr const char* op = "accumulate_";
  check_fp32(op, "sum", in.sum);
  TORCH_CHECK(in.sum.dim() == 1, "refract::", op, ": expected sum of shape [n], got ",
              in.sum.sizes());
  check_arena(op, "sum", in.sum, in.sum);
  check_arena(op, "part", in.part, in.sum);
  TORCH_CHECK(has_cuda_dtype(in.part.scalar_type()), "refract::", op,
              ": expected part to be float32, bfloat16 or float16, got ", in.part.scalar_type());
}

}  // namespace optimizer

namespace composite {

void adamw_(const AdamWInputs& in) {
  optimizer::check_adamw(in);
  const AdamW& s = in.settings;
  at::NoGradGuard no_grad;
  const at::Tensor run = in.control[1].eq(0), lr = in.hyper[0];
  const at::Tensor grad = in.grads.to(at::kFloat) * in.control[0];
  at::Tensor weight = in.master.clone();
  weight.narrow(0, 0, s.n_decay).mul_(1 - lr * s.weight_decay);
  const at::Tensor m = in.exp_avg.lerp(grad, 1 - s.beta1);
  const at::Tensor v = in.exp_avg_sq * s.beta2 + (1 - s.beta2) * grad * grad;
  const at::Tensor denominator = v.sqrt() / in.hyper[2].sqrt() + s.eps;
  weight.sub_(lr / in.hyper[1] * (m / denominator));
  // A choice on the device: asking the flag would stop the stream.
  in.master.copy_(at::where(run, weight, in.master));
  in.exp_avg.copy_(at::where(run, m, in.exp_avg));
  in.exp_avg_sq.copy_(at::where(run, v, in.exp_avg_sq));
  if (in.compute && in.compute->defined()) {
    in.compute->copy_(at::where(run, in.master.to(in.compute->scalar_type()), *in.compute));
  }
  if (s.zero_grads) in.grads.copy_(at::where(run, at::zeros_like(in.grads), in.grads));
}

at::Tensor global_norm(const GlobalNormInputs& in) {
  optimizer::check_norm(in);
  at::NoGradGuard no_grad;
  const at::Tensor wide = in.flat.to(at::kDouble);
  return wide.mul(wide).sum().sqrt().to(at::kFloat);
}

void step_control_(const StepControlInputs& in) {
  optimizer::check_control(in);
  at::NoGradGuard no_grad;
  const at::Tensor norm = in.norm.reshape({}), loss = in.loss.reshape({});
  const at::Tensor bad = at::isfinite(norm).logical_and(at::isfinite(loss)).logical_not();
  const at::Tensor fresh = bad.logical_and(in.control[1].eq(0));
  in.control[0].copy_(in.max_norm > 0 ? (norm + 1e-6).reciprocal().mul(in.max_norm).clamp_max(1.0)
                                      : at::ones_like(norm));
  in.control[2].copy_(at::where(fresh, in.step.reshape({}).to(at::kFloat), in.control[2]));
  in.control[1].copy_(at::where(fresh, at::ones_like(norm), in.control[1]));
}

void accumulate_(const AccumulateInputs& in) {
  optimizer::check_accumulate(in);
  at::NoGradGuard no_grad;
  in.sum.add_(in.part);
  in.part.zero_();
}

}  // namespace composite

namespace {

// In-place ops without a result have nothing to say about shapes.
void adamw_meta(const AdamWInputs&) {}
void step_control_meta(const StepControlInputs&) {}
void accumulate_meta(const AccumulateInputs&) {}

}  // namespace

TORCH_LIBRARY_FRAGMENT(refract, m) {
  define(
      m, adamw_,
      "(Tensor(a!) master, Tensor(b!)? compute, Tensor(c!) grads, Tensor(d!) exp_avg,"
      " Tensor(e!) exp_avg_sq, Tensor hyper, Tensor control, float beta1, float beta2, float eps,"
      " float weight_decay, int n_decay, bool zero_grads=False) -> ()")
      .composite<composite::adamw_>()
      .meta<adamw_meta>();
  define(m, global_norm, "(Tensor flat) -> Tensor").composite<composite::global_norm>();
  define(m, step_control_,
         "(Tensor(a!) control, Tensor norm, Tensor loss, float max_norm, Tensor step) -> ()")
      .composite<composite::step_control_>()
      .meta<step_control_meta>();
  define(m, accumulate_, "(Tensor(a!) sum, Tensor(b!) part) -> ()")
      .composite<composite::accumulate_>()
      .meta<accumulate_meta>();
}

}  // namespace refract
