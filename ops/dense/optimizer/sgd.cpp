#include "ops/dense/optimizer/sgd.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/where.h>
#include <ATen/ops/zeros_like.h>

#include "ops/common/check.h"
#include "ops/common/define.h"
#include "ops/common/dispatch.h"

namespace refract {
namespace sgd_op {
namespace {

void check_arena(const char* name, const at::Tensor& t, const at::Tensor& like) {
  TORCH_CHECK(
      t.dim() == 1 && t.size(0) == like.numel() && t.is_contiguous() && t.device() == like.device(),
      "refract::sgd_: expected ", name, " contiguous of shape [", like.numel(), "] on ",
      like.device(), ", got ", t.sizes(), " on ", t.device());
}

void check_fp32(const char* name, const at::Tensor& t) {
  TORCH_CHECK(t.scalar_type() == at::kFloat, "refract::sgd_: expected ", name,
              " to be float32, got ", t.scalar_type());
}

void check_scalars(const char* name, const at::Tensor& t, const at::Tensor& like) {
  check_fp32(name, t);
  TORCH_CHECK(t.numel() == 4 && t.is_contiguous() && t.device() == like.device(),
              "refract::sgd_: expected ", name, " of 4 elements on ", like.device(), ", got ",
              t.sizes(), " on ", t.device());
}

void check_half_or_float(const char* name, const at::Tensor& t) {
  TORCH_CHECK(has_cuda_dtype(t.scalar_type()), "refract::sgd_: expected ", name,
              " to be float32, bfloat16 or float16, got ", t.scalar_type());
}

}  // namespace

void check(const SgdInputs& in) {
  check_arena("master", in.master, in.master);
  check_arena("grads", in.grads, in.master);
  check_arena("buffer", in.buffer, in.master);
  check_fp32("master", in.master);
  check_fp32("buffer", in.buffer);
  check_scalars("hyper", in.hyper, in.master);
  check_scalars("control", in.control, in.master);
  check_half_or_float("grads", in.grads);
  if (in.compute && in.compute->defined()) {
    check_arena("compute", *in.compute, in.master);
    check_half_or_float("compute", *in.compute);
  }
  TORCH_CHECK(in.settings.n_decay >= 0 && in.settings.n_decay <= in.master.numel(),
              "refract::sgd_: expected n_decay in [0, ", in.master.numel(), "], got ",
              in.settings.n_decay);
}

}  // namespace sgd_op

namespace composite {

void sgd_(const SgdInputs& in) {
  sgd_op::check(in);
  const Sgd& s = in.settings;
  const at::NoGradGuard no_grad;
  const at::Tensor run = in.control[1].eq(0);
  const at::Tensor step = in.grads.to(at::kFloat) * in.control[0];
  step.narrow(0, 0, s.n_decay).add_(in.master.narrow(0, 0, s.n_decay), s.weight_decay);
  const at::Tensor buffer = in.buffer * s.momentum + step;
  const at::Tensor down = s.nesterov ? step + buffer * s.momentum : buffer;
  // A choice on the device: asking the flag would stop the stream.
  in.master.copy_(at::where(run, in.master - in.hyper[0] * down, in.master));
  in.buffer.copy_(at::where(run, buffer, in.buffer));
  if (in.compute && in.compute->defined())
    in.compute->copy_(at::where(run, in.master.to(in.compute->scalar_type()), *in.compute));
  if (s.zero_grads) in.grads.copy_(at::where(run, at::zeros_like(in.grads), in.grads));
}

}  // namespace composite

namespace {

// An in-place op without a result has nothing to say about shapes.
void sgd_meta(const SgdInputs&) {}

}  // namespace

TORCH_LIBRARY_FRAGMENT(refract, m) {
  define(m, sgd_,
         "(Tensor(a!) master, Tensor(b!)? compute, Tensor(c!) grads, Tensor(d!) buffer,"
         " Tensor hyper, Tensor control, float momentum, float weight_decay, int n_decay,"
         " bool nesterov=False, bool zero_grads=False) -> ()")
      .composite<composite::sgd_>()
      .meta<sgd_meta>();
}

}  // namespace refract
