#include "ops/dense/optimizer/optimizer.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/isfinite.h>
#include <ATen/ops/ones_like.h>
#include <ATen/ops/where.h>
#include <ATen/ops/zeros_like.h>
#include <torch/library.h>

#include "ops/common/call.h"
#include "ops/common/check.h"
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

void check_adamw(const at::Tensor& master, const std::optional<at::Tensor>& compute,
                 const at::Tensor& grads, const at::Tensor& exp_avg, const at::Tensor& exp_avg_sq,
                 const at::Tensor& hyper, const at::Tensor& control, int64_t n_decay) {
  constexpr const char* op = "adamw_";
  TORCH_CHECK(master.dim() == 1, "refract::", op, ": expected master of shape [n], got ",
              master.sizes());
  check_arena(op, "master", master, master);
  check_arena(op, "grads", grads, master);
  check_arena(op, "exp_avg", exp_avg, master);
  check_arena(op, "exp_avg_sq", exp_avg_sq, master);
  check_fp32(op, "master", master);
  check_fp32(op, "exp_avg", exp_avg);
  check_fp32(op, "exp_avg_sq", exp_avg_sq);
  check_fp32(op, "hyper", hyper);
  check_fp32(op, "control", control);
  check_small(op, "hyper", hyper, 4, master);
  check_small(op, "control", control, 4, master);
  TORCH_CHECK(has_cuda_dtype(grads.scalar_type()), "refract::", op,
              ": expected grads to be float32, bfloat16 or float16, got ", grads.scalar_type());
  if (compute && compute->defined()) {
    check_arena(op, "compute", *compute, master);
    TORCH_CHECK(has_cuda_dtype(compute->scalar_type()), "refract::", op,
                ": expected compute to be float32, bfloat16 or float16, got ",
                compute->scalar_type());
  }
  TORCH_CHECK(n_decay >= 0 && n_decay <= master.numel(), "refract::", op,
              ": expected n_decay in [0, ", master.numel(), "], got ", n_decay);
}

void check_norm(const at::Tensor& flat) {
  TORCH_CHECK(has_cuda_dtype(flat.scalar_type()),
              "refract::global_norm: expected float32, bfloat16 or float16, got ",
              flat.scalar_type());
}

void check_control(const at::Tensor& control, const at::Tensor& norm, const at::Tensor& loss,
                   const at::Tensor& step) {
  constexpr const char* op = "step_control_";
  check_fp32(op, "control", control);
  check_fp32(op, "norm", norm);
  check_fp32(op, "loss", loss);
  check_small(op, "control", control, 4, control);
  check_small(op, "norm", norm, 1, control);
  check_small(op, "loss", loss, 1, control);
  check_small(op, "step", step, 1, control);
  TORCH_CHECK(step.scalar_type() == at::kLong, "refract::", op, ": expected step to be int64, got ",
              step.scalar_type());
}

void check_accumulate(const at::Tensor& sum, const at::Tensor& part) {
  constexpr const char* op = "accumulate_";
  check_fp32(op, "sum", sum);
  TORCH_CHECK(sum.dim() == 1, "refract::", op, ": expected sum of shape [n], got ", sum.sizes());
  check_arena(op, "sum", sum, sum);
  check_arena(op, "part", part, sum);
  TORCH_CHECK(has_cuda_dtype(part.scalar_type()), "refract::", op,
              ": expected part to be float32, bfloat16 or float16, got ", part.scalar_type());
}

}  // namespace optimizer

namespace composite {

void adamw_(const at::Tensor& master, const std::optional<at::Tensor>& compute,
            const at::Tensor& grads, const at::Tensor& exp_avg, const at::Tensor& exp_avg_sq,
            const at::Tensor& hyper, const at::Tensor& control, const AdamW& s) {
  optimizer::check_adamw(master, compute, grads, exp_avg, exp_avg_sq, hyper, control, s.n_decay);
  at::NoGradGuard no_grad;
  const at::Tensor run = control[1].eq(0), lr = hyper[0];
  const at::Tensor grad = grads.to(at::kFloat) * control[0];
  at::Tensor weight = master.clone();
  weight.narrow(0, 0, s.n_decay).mul_(1 - lr * s.weight_decay);
  const at::Tensor m = exp_avg.lerp(grad, 1 - s.beta1);
  const at::Tensor v = exp_avg_sq * s.beta2 + (1 - s.beta2) * grad * grad;
  const at::Tensor denominator = v.sqrt() / hyper[2].sqrt() + s.eps;
  weight.sub_(lr / hyper[1] * (m / denominator));
  // A choice on the device: asking the flag would stop the stream.
  master.copy_(at::where(run, weight, master));
  exp_avg.copy_(at::where(run, m, exp_avg));
  exp_avg_sq.copy_(at::where(run, v, exp_avg_sq));
  if (compute && compute->defined()) {
    compute->copy_(at::where(run, master.to(compute->scalar_type()), *compute));
  }
  if (s.zero_grads) grads.copy_(at::where(run, at::zeros_like(grads), grads));
}

at::Tensor global_norm(const at::Tensor& flat) {
  optimizer::check_norm(flat);
  at::NoGradGuard no_grad;
  const at::Tensor wide = flat.to(at::kDouble);
  return wide.mul(wide).sum().sqrt().to(at::kFloat);
}

void step_control_(const at::Tensor& control, const at::Tensor& norm_in, const at::Tensor& loss_in,
                   double max_norm, const at::Tensor& step) {
  optimizer::check_control(control, norm_in, loss_in, step);
  at::NoGradGuard no_grad;
  const at::Tensor norm = norm_in.reshape({}), loss = loss_in.reshape({});
  const at::Tensor bad = at::isfinite(norm).logical_and(at::isfinite(loss)).logical_not();
  const at::Tensor fresh = bad.logical_and(control[1].eq(0));
  control[0].copy_(max_norm > 0 ? (norm + 1e-6).reciprocal().mul(max_norm).clamp_max(1.0)
                                : at::ones_like(norm));
  control[2].copy_(at::where(fresh, step.reshape({}).to(at::kFloat), control[2]));
  control[1].copy_(at::where(fresh, at::ones_like(norm), control[1]));
}

void accumulate_(const at::Tensor& sum, const at::Tensor& part) {
  optimizer::check_accumulate(sum, part);
  at::NoGradGuard no_grad;
  sum.add_(part);
  part.zero_();
}

}  // namespace composite

namespace {

using MaybeTensor = std::optional<at::Tensor>;

// The schema's flat form of the settings.
void adamw_op(const at::Tensor& master, const MaybeTensor& compute, const at::Tensor& grads,
              const at::Tensor& exp_avg, const at::Tensor& exp_avg_sq, const at::Tensor& hyper,
              const at::Tensor& control, double beta1, double beta2, double eps,
              double weight_decay, int64_t n_decay, bool zero_grads) {
  composite::adamw_(master, compute, grads, exp_avg, exp_avg_sq, hyper, control,
                    {beta1, beta2, eps, weight_decay, n_decay, zero_grads});
}

// In-place ops without a result have nothing to say about shapes.
void adamw_meta(const at::Tensor&, const MaybeTensor&, const at::Tensor&, const at::Tensor&,
                const at::Tensor&, const at::Tensor&, const at::Tensor&, double, double, double,
                double, int64_t, bool) {}
void step_control_meta(const at::Tensor&, const at::Tensor&, const at::Tensor&, double,
                       const at::Tensor&) {}
void accumulate_meta(const at::Tensor&, const at::Tensor&) {}

}  // namespace

void adamw_(const at::Tensor& master, const std::optional<at::Tensor>& compute,
            const at::Tensor& grads, const at::Tensor& exp_avg, const at::Tensor& exp_avg_sq,
            const at::Tensor& hyper, const at::Tensor& control, const AdamW& s) {
  static const auto op = find_op<decltype(adamw_op)>("refract::adamw_");
  op.call(master, compute, grads, exp_avg, exp_avg_sq, hyper, control, s.beta1, s.beta2, s.eps,
          s.weight_decay, s.n_decay, s.zero_grads);
}

at::Tensor global_norm(const at::Tensor& flat) {
  static const auto op = find_op<at::Tensor(const at::Tensor&)>("refract::global_norm");
  return op.call(flat);
}

void step_control_(const at::Tensor& control, const at::Tensor& norm, const at::Tensor& loss,
                   double max_norm, const at::Tensor& step) {
  static const auto op = find_op<void(const at::Tensor&, const at::Tensor&, const at::Tensor&,
                                      double, const at::Tensor&)>("refract::step_control_");
  op.call(control, norm, loss, max_norm, step);
}

void accumulate_(const at::Tensor& sum, const at::Tensor& part) {
  static const auto op =
      find_op<void(const at::Tensor&, const at::Tensor&)>("refract::accumulate_");
  op.call(sum, part);
}

TORCH_LIBRARY_FRAGMENT(refract, m) {
  m.def(
      "adamw_(Tensor(a!) master, Tensor(b!)? compute, Tensor(c!) grads, Tensor(d!) exp_avg,"
      " Tensor(e!) exp_avg_sq, Tensor hyper, Tensor control, float beta1, float beta2, float eps,"
      " float weight_decay, int n_decay, bool zero_grads=False) -> ()");
  m.def("global_norm(Tensor flat) -> Tensor");
  m.def(
      "step_control_(Tensor(a!) control, Tensor norm, Tensor loss, float max_norm, Tensor step)"
      " -> ()");
  m.def("accumulate_(Tensor(a!) sum, Tensor(b!) part) -> ()");
}

TORCH_LIBRARY_IMPL(refract, CompositeExplicitAutograd, m) {
  m.impl("adamw_", &adamw_op);
  m.impl("global_norm", &composite::global_norm);
  m.impl("step_control_", &composite::step_control_);
  m.impl("accumulate_", &composite::accumulate_);
}

TORCH_LIBRARY_IMPL(refract, Meta, m) {
  m.impl("adamw_", &adamw_meta);
  m.impl("step_control_", &step_control_meta);
  m.impl("accumulate_", &accumulate_meta);
}

}  // namespace refract
