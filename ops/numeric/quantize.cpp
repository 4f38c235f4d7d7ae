// Schema, checks and composite form of number_quantize.
#include "ops/numeric/quantize.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/abs.h>
#include <ATen/ops/amax.h>
#include <ATen/ops/aminmax.h>
#include <ATen/ops/constant_pad_nd.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/frexp.h>
#include <ATen/ops/full_like.h>
#include <ATen/ops/ldexp.h>
#include <ATen/ops/maximum.h>
#include <ATen/ops/ones_like.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/where.h>
#include <ATen/ops/zeros_like.h>

#include <cmath>

#include "ops/common/check.h"
#include "ops/common/define.h"
#include "ops/common/philox_tensor.h"
#include "ops/numeric/element.h"

namespace refract {

using numeric::Element;
using numeric::Rounding;
using numeric::Scaling;

void number_quantize_op::check(const NumberQuantizeInputs& in) {
  const char* op = "number_quantize";
  const NumberFormat& f = in.format;
  check_floating(op, "x", in.x);
  TORCH_CHECK(in.x.dim() >= (in.columns ? 2 : 1), "refract::", op, ": expected x of ",
              in.columns ? "two dimensions" : "one dimension", " or more, got ", in.x.sym_sizes());
  TORCH_CHECK(f.exponent_bits >= 0 && f.exponent_bits <= 7 && f.mantissa_bits >= 0 &&
                  f.mantissa_bits <= 14 && f.max > 0,
              "refract::", op,
              ": expected 0 to 7 exponent bits, 0 to 14 mantissa bits and a "
              "positive maximum, got ",
              f.exponent_bits, ", ", f.mantissa_bits, " and ", f.max);
  TORCH_CHECK(
      f.rounding >= 0 && f.rounding <= 3 && f.scaling >= 0 && f.scaling <= 4 && f.block >= -1,
      "refract::", op,
      ": expected rounding 0 to 3, scaling 0 to 4 and a block of -1 or "
      "more, got ",
      f.rounding, ", ", f.scaling, " and ", f.block);
  if (static_cast<Rounding>(f.rounding) != Rounding::kStochastic) return;
  TORCH_CHECK(in.clock.has_value() && in.clock->scalar_type() == at::kLong &&
                  in.clock->sym_numel() == 2 && in.clock->device() == in.x.device(),
              "refract::", op, ": stochastic rounding needs a clock, int64 [2] on ", in.x.device());
}

at::Tensor number_quantize_op::tensor_limits(const NumberQuantizeInputs& in) {
  const bool blocks = static_cast<Scaling>(in.format.scaling) == Scaling::kBlocks;
  if (in.x.numel() == 0 || (!blocks && in.format.block >= 0)) return {};
  const auto [lo, hi] = at::aminmax(in.x);
  return at::stack({lo.clamp_max(0), hi.clamp_min(0)}).to(at::kFloat);
}

namespace composite {
namespace {

// floor(log2 |x|); -127 or less below the normal numbers.
at::Tensor exponents(const at::Tensor& x) { return std::get<1>(at::frexp(x)).sub(1); }

at::Tensor rounded_whole(const at::Tensor& a, Rounding rounding, const at::Tensor& u) {
  if (rounding == Rounding::kEven) return a.round();
  at::Tensor below = a.floor();
  if (rounding == Rounding::kZero) return below;
  const at::Tensor rest = a - below;
  if (rounding == Rounding::kAway) return below + rest.ge(0.5);
  return below + u.lt(rest);
}

at::Tensor element(const at::Tensor& x, const Element& f, Rounding rounding, const at::Tensor& u) {
  const at::Tensor a = x.abs().clamp_max(f.max);
  const at::Tensor shift = f.mantissa_bits - exponents(a).clamp_min(f.least_exponent);
  const at::Tensor rounded = at::ldexp(rounded_whole(at::ldexp(a, shift), rounding, u), -shift);
  return at::where(x.isnan(), x, at::where(x.signbit(), -rounded, rounded));
}

at::Tensor in_groups(const at::Tensor& x, const at::Tensor& lo, const at::Tensor& hi,
                     const at::Tensor& of_tensor, const Element& f, const at::Tensor& u) {
  const at::Tensor most = at::maximum(lo.neg(), hi);
  if (f.scaling == Scaling::kNone) return element(x, f, f.rounding, u);
  if (f.scaling == Scaling::kPower) {
    const at::Tensor power =
        (exponents(most.clamp_max(std::ldexp(1.0, 127))).masked_fill(most.eq(0), -127) -
         f.greatest_exponent)
            .clamp_min(-127);
    return at::ldexp(element(at::ldexp(x, -power), f, f.rounding, u), power);
  }
  const auto safe = [](const at::Tensor& s) { return at::where(s > 0, s, at::ones_like(s)); };
  const auto or_zero = [&x](const at::Tensor& y, const at::Tensor& s) {
    return at::where(x.isnan(), x, at::where(s > 0, y, at::zeros_like(y)));
  };
  if (f.scaling == Scaling::kLimits) {
    const double steps = std::exp2(f.mantissa_bits + 2) - 1;
    const at::Tensor scale = (hi - lo) / steps, s = safe(scale), zero = (-lo / s).round();
    const at::Tensor place = (x / s + zero).clamp(0, steps);
    return or_zero((rounded_whole(place, f.rounding, u) - zero) * s, scale);
  }
  at::Tensor scale = most / f.max;
  if (f.scaling == Scaling::kBlocks) {
    const at::Tensor whole =
        (at::maximum(of_tensor[0].neg(), of_tensor[1]) / numeric::kBlocksMost).to(x.scalar_type());
    const at::Tensor wanted = at::where(whole > 0, scale / safe(whole), at::zeros_like(scale));
    scale = element(wanted, numeric::block_scale(), Rounding::kEven, {}) * whole;
  }
  return or_zero(element(x / safe(scale), f, f.rounding, u) * scale, scale);
}

// Of the last dimension.
at::Tensor rows_quantized(const at::Tensor& x, const NumberQuantizeInputs& in) {
  const Element f = numeric::element_of(in.format);
  const at::ScalarType wide = x.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
  const int64_t width = x.size(-1), block = in.format.block > 0 ? in.format.block : width;
  const int64_t missing = (block - width % block) % block;
  const auto cut = [&](const at::Tensor& t) {
    std::vector<int64_t> sizes = t.sizes().vec();
    sizes.back() = (width + missing) / block;
    sizes.push_back(block);
    return at::constant_pad_nd(t, {0, missing}).reshape(sizes);
  };
  const at::Tensor v = cut(x.to(wide));
  at::Tensor u = at::zeros_like(v), of_tensor = number_quantize_op::tensor_limits(in);
  if (f.rounding == Rounding::kStochastic) {
    const PhiloxKey key =
        philox_key(static_cast<uint64_t>(in.seed), static_cast<uint64_t>(in.stream));
    u = cut(philox_uniforms(key, in.clock->select(0, 0), in.clock->select(0, 1), x.numel())
                .view(x.sizes())
                .to(wide));
  }
  const at::Tensor known = v.nan_to_num(0, INFINITY, -INFINITY);
  at::Tensor lo = known.amin(-1, true).clamp_max(0), hi = known.amax(-1, true).clamp_min(0);
  if (in.format.block == -1) {
    lo = at::full_like(lo, 1) * of_tensor[0];
    hi = at::full_like(hi, 1) * of_tensor[1];
  }
  const at::Tensor y = in_groups(v, lo, hi, of_tensor, f, u).flatten(-2).narrow(-1, 0, width);
  return y.to(x.scalar_type());
}

}  // namespace

at::Tensor number_quantize(const NumberQuantizeInputs& in) {
  number_quantize_op::check(in);
  if (in.x.numel() == 0) return at::empty_like(in.x, {}, at::MemoryFormat::Contiguous);
  if (!in.columns) return rows_quantized(in.x.contiguous(), in);
  return rows_quantized(in.x.transpose(-1, -2).contiguous(), in).transpose(-1, -2).contiguous();
}

}  // namespace composite

namespace {

at::Tensor number_quantize_meta(const NumberQuantizeInputs& in) {
  number_quantize_op::check(in);
  return at::empty_symint(in.x.sym_sizes(), in.x.options());
}

}  // namespace

TORCH_LIBRARY_FRAGMENT(refract, m) {
  define(m, number_quantize,
         "(Tensor x, bool columns=False, int exponent_bits=4, int mantissa_bits=3, float max=448,"
         " int rounding=0, int scaling=0, int block=0, int seed=0, int stream=0,"
         " Tensor? clock=None) -> Tensor")
      .composite<composite::number_quantize>()
      .meta<number_quantize_meta>();
}

}  // namespace refract
