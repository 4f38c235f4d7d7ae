// Schemas, checks and composite forms of analog_inputs and analog_collect_.
#include "ops/numeric/tiles/tile.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/repeat_interleave.h>

#include <cmath>

#include "ops/common/autograd.h"
#include "ops/common/check.h"
#include "ops/common/define.h"
#include "ops/numeric/normal_noise.h"

namespace refract {

double analog_op::steps_of(int64_t bits) {
  return bits > 0 ? std::ldexp(1, static_cast<int>(bits) - 1) - 1 : 1;
}

at::Tensor analog_op::in_steps(const at::Tensor& x, const at::Tensor& r, int64_t bits) {
  const double n = steps_of(bits);
  at::Tensor u = x.mul(r.reciprocal().mul_(n));
  if (bits > 0) u.round_();
  return u.clamp_(-n, n);
}

void analog_op::check(const AnalogInputs& in) {
  const char* op = "analog_inputs";
  check_floating(op, "x", in.x);
  TORCH_CHECK(in.x.dim() == 2 && in.tile_rows > 0, "refract::", op,
              ": expected x [M, K] and tile_rows above 0, got ", in.x.sym_sizes(), " and ",
              in.tile_rows);
  const bool is_double = in.x.scalar_type() == at::kDouble;
  const auto tiles = (in.x.sym_size(1) + in.tile_rows - 1) / in.tile_rows;
  TORCH_CHECK(in.r.scalar_type() == (is_double ? at::kDouble : at::kFloat) &&
                  (in.r.dim() == 1 || (in.r.dim() == 2 && in.r.sym_size(0) == in.x.sym_size(0))) &&
                  in.r.sym_size(-1) == tiles && in.r.device() == in.x.device(),
              "refract::", op, ": expected r [M, ", tiles, "] or [", tiles, "] in ",
              is_double ? "float64" : "float32", " on ", in.x.device(), ", got ",
              in.r.scalar_type(), " ", in.r.sym_sizes());
}

void analog_op::check(const AnalogCollectInputs& in) {
  const char* op = "analog_collect_";
  TORCH_CHECK(in.y.dim() == 2 && in.y.is_contiguous() &&
                  (in.y.scalar_type() == at::kFloat || in.y.scalar_type() == at::kDouble),
              "refract::", op, ": expected y [M, N], contiguous, float32 or float64, got ",
              in.y.scalar_type(), " ", in.y.sizes());
  check_like(op, "z", in.z, "y", in.y);
  TORCH_CHECK(in.z.sizes() == in.y.sizes() && in.z.is_contiguous(), "refract::", op,
              ": expected z contiguous of y's shape ", in.y.sizes(), ", got ", in.z.sizes());
  if (in.scale) check_vector(op, "scale", *in.scale, in.y.size(1));
  check_vector(op, "out", in.out, in.y.size(1));
  TORCH_CHECK((in.r.dim() == 1 && in.r.size(0) == 1) ||
                  (in.r.dim() == 2 && in.r.size(0) == in.y.size(0) && in.r.size(1) == 1),
              "refract::", op, ": expected r [", in.y.size(0), ", 1] or [1], got ", in.r.sizes());
  TORCH_CHECK(in.converter.out_noise == 0 || in.clock, "refract::", op,
              ": expected a clock for out_noise");
  TORCH_CHECK(in.converter.bits == 0 || in.converter.bound > 0, "refract::", op,
              ": expected a bound for a converter of ", in.converter.bits, " bits");
}

at::Tensor composite::analog_inputs(const AnalogInputs& in) {
  analog_op::check(in);
  const at::Tensor r = at::repeat_interleave(in.r, in.tile_rows, -1).narrow(-1, 0, in.x.size(1));
  return analog_op::in_steps(in.x.to(in.r.scalar_type()), r, in.bits).to(in.x.scalar_type());
}

void composite::analog_collect_(const AnalogCollectInputs& in) {
  analog_op::check(in);
  const AnalogConverter& c = in.converter;
  at::Tensor z = in.z;
  if (in.scale) z.mul_(*in.scale);
  if (c.out_noise > 0) z.add_(refract::normal_noise(z, c.seed, c.stream, *in.clock), c.out_noise);
  if (c.bits > 0) {
    const double n = analog_op::steps_of(c.bits);
    z.mul_(n / c.bound).round_().clamp_(-n, n).mul_(c.bound / n);
  } else if (c.bound > 0) {
    z.clamp_(-c.bound, c.bound);
  }
  at::Tensor y = in.y;
  y.addcmul_(z.mul_(in.out), in.r.expand({z.size(0), 1}));
}

namespace {

at::Tensor inputs_meta(const AnalogInputs& in) {
  analog_op::check(in);
  return at::empty_like(in.x);
}

}  // namespace

TORCH_LIBRARY_FRAGMENT(refract, m) {
  define(m, analog_inputs, "(Tensor x, Tensor r, int tile_rows, int bits) -> Tensor")
      .composite<composite::analog_inputs>()
      .meta<inputs_meta>();
  define(m, analog_collect_,
         "(Tensor(a!) y, Tensor(b!) z, Tensor? scale, Tensor r, Tensor out, Tensor? clock=None,"
         " float out_noise=0, int bits=0, float bound=0, int seed=0, int stream=0) -> ()")
      .composite<composite::analog_collect_>();
}

}  // namespace refract
