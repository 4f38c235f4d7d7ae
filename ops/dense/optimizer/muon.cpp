#include "ops/dense/optimizer/muon.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/baddbmm.h>
#include <ATen/ops/bmm.h>
#include <ATen/ops/lerp.h>
#include <ATen/ops/linalg_vector_norm.h>
#include <ATen/ops/where.h>
#include <ATen/ops/zeros_like.h>

#include <algorithm>
#include <cmath>

#include "ops/common/check.h"
#include "ops/common/define.h"
#include "ops/common/dispatch.h"

namespace refract {
namespace {

void check_matrices(const char* name, const at::Tensor& t, const at::Tensor& like) {
  TORCH_CHECK(t.sizes() == like.sizes() && t.is_contiguous() && t.device() == like.device(),
              "refract::muon_: expected ", name, " contiguous of shape ", like.sizes(), " on ",
              like.device(), ", got ", t.sizes(), " on ", t.device());
}

void check_type(const char* name, const at::Tensor& t, bool half_too) {
  TORCH_CHECK(half_too ? has_cuda_dtype(t.scalar_type()) : t.scalar_type() == at::kFloat,
              "refract::muon_: expected ", name, " to be float32",
              half_too ? ", bfloat16 or float16" : "", ", got ", t.scalar_type());
}

void check_scalars(const char* name, const at::Tensor& t, const at::Tensor& like) {
  check_type(name, t, /*half_too=*/false);
  TORCH_CHECK(t.numel() == 4 && t.is_contiguous() && t.device() == like.device(),
              "refract::muon_: expected ", name, " of 4 elements on ", like.device(), ", got ",
              t.sizes(), " on ", t.device());
}

void check(const MuonInputs& in) {
  TORCH_CHECK(in.master.dim() >= 2,
              "refract::muon_: expected master of matrices [..., rows, "
              "columns], got ",
              in.master.sizes());
  check_matrices("master", in.master, in.master);
  check_matrices("grads", in.grads, in.master);
  check_matrices("buffer", in.buffer, in.master);
  check_type("master", in.master, /*half_too=*/false);
  check_type("buffer", in.buffer, /*half_too=*/false);
  check_type("grads", in.grads, /*half_too=*/true);
  check_scalars("hyper", in.hyper, in.master);
  check_scalars("control", in.control, in.master);
  if (in.compute && in.compute->defined()) {
    check_matrices("compute", *in.compute, in.master);
    check_type("compute", *in.compute, /*half_too=*/true);
  }
  TORCH_CHECK(in.settings.steps > 0, "refract::muon_: expected steps above 0, got ",
              in.settings.steps);
}

// x [b, m, n] with m <= n: singular values of any size up to 1 come near 1 in a few steps. The
// polynomial's slope at 0 is steep, and so the limit is a band around 1 (0.7 to 1.2), not 1.
at::Tensor newton_schulz(at::Tensor x, int64_t steps) {
  constexpr double a = 3.4445, b = -4.7750, c = 2.0315;
  for (int64_t i = 0; i < steps; ++i) {
    const at::Tensor gram = at::bmm(x, x.mT());
    const at::Tensor polynomial = at::baddbmm(gram, gram, gram, b, c);
    x = at::baddbmm(x, polynomial, x, a, 1);
  }
  return x;
}

at::Tensor orthogonal(const at::Tensor& update, const Muon& settings) {
  const int64_t rows = update.size(-2), columns = update.size(-1);
  at::Tensor x = update.reshape({-1, rows, columns});
  x = x / at::linalg_vector_norm(x, 2, at::IntArrayRef{1, 2}, true).clamp_min(1e-7);
  if (settings.half) x = x.to(at::kBFloat16);
  const bool tall = rows > columns;
  x = newton_schulz(tall ? x.mT() : x, settings.steps);
  return (tall ? x.mT() : x).to(at::kFloat).reshape(update.sizes());
}

// An in-place op without a result has nothing to say about shapes.
void muon_meta(const MuonInputs&) {}

}  // namespace

namespace composite {

void muon_(const MuonInputs& in) {
  check(in);
  if (in.master.numel() == 0) return;
  const Muon& s = in.settings;
  const at::NoGradGuard no_grad;
  const at::Tensor run = in.control[1].eq(0);
  const at::Tensor gradient = in.grads.to(at::kFloat) * in.control[0];
  const at::Tensor buffer = at::lerp(in.buffer, gradient, 1 - s.momentum);
  const at::Tensor update = s.nesterov ? at::lerp(gradient, buffer, s.momentum) : buffer;
  const at::Tensor lr = in.hyper[0];
  const auto longer = static_cast<double>(std::max(in.master.size(-2), in.master.size(-1)));
  const at::Tensor weights = in.master * (1 - lr * s.weight_decay) -
                             orthogonal(update, s) * (lr * (0.2 * std::sqrt(longer)));
  // A choice on the device: asking the flag would stop the stream.
  in.master.copy_(at::where(run, weights, in.master));
  in.buffer.copy_(at::where(run, buffer, in.buffer));
  if (in.compute && in.compute->defined())
    in.compute->copy_(at::where(run, in.master.to(in.compute->scalar_type()), *in.compute));
  if (s.zero_grads) in.grads.copy_(at::where(run, at::zeros_like(in.grads), in.grads));
}

}  // namespace composite

TORCH_LIBRARY_FRAGMENT(refract, m) {
  define(m, muon_,
         "(Tensor(a!) master, Tensor(b!)? compute, Tensor(c!) grads, Tensor(d!) buffer,"
         " Tensor hyper, Tensor control, float momentum, float weight_decay, bool nesterov,"
         " int steps, bool half=False, bool zero_grads=False) -> ()")
      .composite<composite::muon_>()
      .meta<muon_meta>();
}

}  // namespace refract
