// Schema, checks, composite form and autograd of optical_quantize and optical_observe_.
#include "ops/optical/quantize/quantize.h"

#include <ATen/ops/aminmax.h>
#include <ATen/ops/clamp.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/full.h>
#include <ATen/ops/full_like.h>
#include <ATen/ops/isfinite.h>
#include <ATen/ops/sort.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/where.h>
#include <ATen/ops/zeros.h>

#include <cmath>

#include "ops/common/autograd.h"
#include "ops/common/check.h"
#include "ops/common/define.h"
#include "ops/common/philox_tensor.h"

namespace refract {
namespace optical_op {

void check_levels(const char* op, int64_t levels, double lut_min) {
  TORCH_CHECK(levels >= 2 && levels <= 65536, "refract::", op,
              ": expected levels in [2, 65536], got ", levels);
  TORCH_CHECK(lut_min >= 0 && lut_min < 1, "refract::", op,
              ": expected lut_min in [0, 1), 0 for no floor, got ", lut_min);
}

void check_range(const char* op, const char* name, const at::Tensor& range, const at::Tensor& x) {
  TORCH_CHECK(range.scalar_type() == at::kFloat && range.dim() == 1 && range.sym_size(0) == 2 &&
                  range.is_contiguous(),
              "refract::", op, ": expected ", name, " to be float32 [2] (lo, hi), got ",
              range.scalar_type(), " ", range.sym_sizes());
  TORCH_CHECK(range.device() == x.device(), "refract::", op, ": expected ", name, " on ",
              x.device(), " as x, got ", range.device());
}

void check_clock(const char* op, const std::optional<at::Tensor>& clock, const at::Tensor& x) {
  if (!clock.has_value()) return;
  TORCH_CHECK(clock->scalar_type() == at::kLong && clock->dim() == 1 && clock->sym_size(0) == 2,
              "refract::", op, ": expected clock to be int64 [2] (step, first slice), got ",
              clock->scalar_type(), " ", clock->sym_sizes());
  TORCH_CHECK(clock->device() == x.device(), "refract::", op, ": expected clock on ", x.device(),
              " as x, got ", clock->device());
}

void check_quantiles(const char* op, at::ArrayRef<double> quantiles) {
  TORCH_CHECK(quantiles.empty() || (quantiles.size() == 2 && quantiles[0] >= 0 &&
                                    quantiles[0] < quantiles[1] && quantiles[1] <= 1),
              "refract::", op, ": expected no quantiles or two that rise within [0, 1], got ",
              quantiles);
}

void check_smooth(const char* op, double smooth) {
  TORCH_CHECK(smooth >= 0 && smooth <= 1, "refract::", op, ": expected smooth in [0, 1], got ",
              smooth);
}

void check_quantize(const OpticalQuantizeInputs& in) {
  const char* op = "optical_quantize";
  check_floating(op, "x", in.x);
  check_levels(op, in.levels, in.lut_min);
  check_range(op, "range", in.range, in.x);
  check_clock(op, in.noise.clock, in.x);
}

void check_observe(const OpticalObserveInputs& in) {
  const char* op = "optical_observe_";
  check_floating(op, "x", in.x);
  check_range(op, "range", in.range, in.x);
  check_smooth(op, in.smooth);
  check_quantiles(op, in.quantiles);
}

}  // namespace optical_op

namespace composite {
namespace {

// Interpolated between the two neighbours in the sorted values.
at::Tensor interpolated(const at::Tensor& sorted, double q) {
  const double place = q * static_cast<double>(sorted.numel() - 1);
  const auto below = static_cast<int64_t>(std::floor(place));
  const int64_t above = std::min(below + 1, sorted.numel() - 1);
  return sorted[below].lerp(sorted[above], place - static_cast<double>(below));
}

at::ScalarType wide_type(const at::Tensor& x) {
  return x.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
}

}  // namespace

at::Tensor optical_seen(const at::Tensor& x, at::ArrayRef<double> quantiles) {
  if (quantiles.empty()) {
    const auto [lo, hi] = at::aminmax(x);
    return at::stack({lo, hi}).to(at::kFloat);
  }
  const at::Tensor sorted = std::get<0>(at::sort(x.flatten().to(at::kFloat)));
  return at::stack({interpolated(sorted, quantiles[0]), interpolated(sorted, quantiles[1])});
}

at::Tensor optical_effective(const at::Tensor& range, const at::Tensor& seen) {
  return at::where(range.select(0, 0).le(range.select(0, 1)), range, seen);
}

void optical_move_(const at::Tensor& range, const at::Tensor& from, const at::Tensor& seen,
                   double smooth) {
  const at::Tensor set = from.select(0, 0).le(from.select(0, 1));
  const auto s = static_cast<float>(smooth);
  const at::Tensor target = at::where(set, from.mul(s).add(seen.mul(1.0f - s)), seen);
  range.copy_(at::where(at::isfinite(seen).all(), target, from));
}

at::Tensor optical_levels(const at::Tensor& x, const at::Tensor& range, int64_t levels,
                          const at::Tensor& xi) {
  const at::Tensor wide = x.to(wide_type(x)), ends = range.to(wide.scalar_type());
  const at::Tensor lo = ends.select(0, 0), hi = ends.select(0, 1), width = hi.sub(lo).add(1e-8);
  const double top = static_cast<double>(levels - 1);
  at::Tensor u = at::clamp(wide, lo, hi).sub(lo).mul(at::full_like(width, top).div(width));
  if (xi.defined()) u = u.add(xi);
  return u.round().clamp_max(top);
}

at::Tensor optical_values(const at::Tensor& level, const at::Tensor& range, int64_t levels,
                          double lut_min) {
  const at::Tensor ends = range.to(level.scalar_type());
  const at::Tensor lo = ends.select(0, 0), hi = ends.select(0, 1);
  at::Tensor v = level.mul(hi.sub(lo).div(static_cast<double>(levels - 1))).add(lo);
  if (lut_min > 0) {
    const at::Tensor above = hi.mul(lut_min), below = lo.abs().mul(-lut_min);
    v = at::where(v.gt(0).logical_and(v.lt(above)), above, v);
    v = at::where(v.lt(0).logical_and(v.gt(below)), below, v);
  }
  return v;
}

at::Tensor optical_xi(at::IntArrayRef sizes, at::Device device, bool noise,
                      std::optional<double> shared_noise, const std::optional<at::Tensor>& clock,
                      int64_t seed, int64_t stream) {
  const auto options = at::TensorOptions().device(device);
  if (shared_noise.has_value()) return at::full({}, *shared_noise, options.dtype(at::kFloat));
  if (!noise) return {};
  int64_t count = 1;
  for (const int64_t size : sizes) count *= size;
  const int64_t slices = sizes.empty() ? 1 : std::max<int64_t>(sizes[0], 1);
  const at::Tensor now = clock.value_or(at::Tensor());
  const at::Tensor step =
      now.defined() ? now.select(0, 0) : at::full({}, int64_t{-1}, options.dtype(at::kLong));
  const at::Tensor first = now.defined() ? now.select(0, 1).mul(count / slices)
                                         : at::zeros({}, options.dtype(at::kLong));
  const PhiloxKey key = philox_key(static_cast<uint64_t>(seed), static_cast<uint64_t>(stream));
  return philox_halves(key, step, first, count).mul(1.0 / 65536).sub(0.5).view(sizes);
}

at::Tensor optical_quantize(const OpticalQuantizeInputs& in) {
  optical_op::check_quantize(in);
  const at::Tensor& x = in.x;
  const OpticalNoise& noise = in.noise;
  if (x.numel() == 0) return at::empty(x.sizes(), x.options());
  const at::Tensor used = optical_effective(in.range, optical_seen(x, {}));
  const at::Tensor xi = optical_xi(x.sizes(), x.device(), noise.on, noise.shared, noise.clock,
                                   noise.seed, noise.stream);
  const at::Tensor level = optical_levels(x.contiguous(), used, in.levels, xi);
  return optical_values(level, used, in.levels, in.lut_min).to(x.scalar_type());
}

void optical_observe_(const OpticalObserveInputs& in) {
  optical_op::check_observe(in);
  if (in.x.numel() == 0) return;
  optical_move_(in.range, in.range, optical_seen(in.x.detach(), in.quantiles), in.smooth);
}

}  // namespace composite

namespace {

struct StraightThrough {
  static at::Tensor forward(AutogradContext* /*ctx*/, const OpticalQuantizeInputs& in) {
    return optical_quantize(in);
  }
  static variable_list backward(AutogradContext* /*ctx*/, const variable_list& grads) {
    return {grads[0]};
  }
};

at::Tensor quantize_autograd(const OpticalQuantizeInputs& in) {
  return recorded<StraightThrough>(optical_quantize, in, in.x);
}

at::Tensor quantize_meta(const OpticalQuantizeInputs& in) {
  optical_op::check_quantize(in);
  return at::empty_symint(in.x.sym_sizes(), in.x.options());
}

void observe_meta(const OpticalObserveInputs& in) { optical_op::check_observe(in); }

}  // namespace

TORCH_LIBRARY_FRAGMENT(refract, m) {
  define(m, optical_quantize,
         "(Tensor x, Tensor range, int levels=256, float lut_min=0.0, bool noise=False,"
         " float? shared_noise=None, Tensor? clock=None, int seed=0, int stream=0) -> Tensor")
      .composite<composite::optical_quantize>()
      .autograd<quantize_autograd>()
      .meta<quantize_meta>();
  define(m, optical_observe_,
         "(Tensor(a!) range, Tensor x, float smooth=0.9, float[] quantiles=[]) -> ()")
      .composite<composite::optical_observe_>()
      .meta<observe_meta>();
}

}  // namespace refract
