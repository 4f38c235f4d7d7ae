// Schemas, checks and fake forms of the optical products; the composite form of optical_encode.
#include "ops/optical/matmul/product.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/stack.h>
#include <torch/library.h>

#include "ops/common/call.h"
#include "ops/common/check.h"
#include "ops/optical/matmul/product_schema.h"
#include "ops/optical/quantize/quantization_math.h"
#include "ops/optical/quantize/quantize.h"

namespace refract {
namespace optical_op {
namespace {

void check_splits(const char* op, const char* what, at::IntArrayRef splits,
                  const c10::SymInt& rows) {
  c10::SymInt sum = 0;
  for (const int64_t n : splits) {
    TORCH_CHECK(n > 0, "refract::", op, ": expected positive splits, got ", splits);
    sum = sum + n;
  }
  TORCH_CHECK(!splits.empty() && splits.size() <= kMaxMembers && sum == rows, "refract::", op,
              ": expected up to ", kMaxMembers, " splits that add up to the ", rows, " rows of ",
              what, ", got ", splits);
}

void check_ranges(const char* op, const char* name, at::TensorList ranges, size_t members,
                  const at::Tensor& x) {
  TORCH_CHECK(ranges.size() == members, "refract::", op, ": expected ", members, " ", name,
              ", one per member of splits, got ", ranges.size());
  for (const at::Tensor& range : ranges) check_range(op, name, range, x);
}

c10::SymInt rows_of(const at::Tensor& x) {
  c10::SymInt rows = 1;
  for (const auto& size : x.sym_sizes().slice(0, x.dim() - 1)) rows = rows * size;
  return rows;
}

}  // namespace

bool has_kernel(const at::Tensor& x, const OpticalSettings& settings) {
  return x.scalar_type() != at::kDouble && settings.quantiles.empty() &&
         settings.levels <= optical::kMaxExactLevels;
}

void check_settings(const char* op, const OpticalSettings& settings, size_t members,
                    const at::Tensor& x) {
  check_levels(op, settings.levels, settings.lut_min);
  check_smooth(op, settings.smooth);
  check_quantiles(op, settings.quantiles);
  check_clock(op, settings.clock, x);
  TORCH_CHECK(
      !settings.noise || settings.shared_noise.has_value() || settings.streams.size() == members,
      "refract::", op, ": expected ", members, " noise streams, one per member, got ",
      settings.streams.size());
}

void check_encode(const at::Tensor& x, at::TensorList ranges, at::IntArrayRef splits,
                  const OpticalSettings& settings) {
  check_floating("optical_encode", "x", x);
  TORCH_CHECK(x.dim() >= 1, "refract::optical_encode: expected x of shape [..., K], got a scalar");
  check_splits("optical_encode", "x", splits, rows_of(x));
  check_ranges("optical_encode", "ranges", ranges, splits.size(), x);
  check_levels("optical_encode", settings.levels, settings.lut_min);
  check_quantiles("optical_encode", settings.quantiles);
}

void check_linear(const at::Tensor& x, const at::Tensor& weight,
                  const std::optional<at::Tensor>& bias, const at::Tensor& x_range,
                  at::TensorList w_ranges, at::TensorList out_ranges, at::IntArrayRef splits,
                  const OpticalSettings& settings) {
  const char* op = "optical_linear";
  check_floating(op, "x", x);
  check_like(op, "weight", weight, "x", x);
  TORCH_CHECK(x.dim() >= 1 && weight.dim() == 2 && x.sym_size(-1) == weight.sym_size(1),
              "refract::", op, ": expected x [..., K] and weight [N, K], got ", x.sym_sizes(),
              " and ", weight.sym_sizes());
  if (bias.has_value()) {
    check_like(op, "bias", *bias, "x", x);
    check_vector(op, "bias", *bias, weight.sym_size(0));
  }
  check_splits(op, "weight", splits, weight.sym_size(0));
  check_range(op, "x_range", x_range, x);
  check_ranges(op, "w_ranges", w_ranges, splits.size(), x);
  check_ranges(op, "out_ranges", out_ranges, splits.size(), x);
  check_settings(op, settings, splits.size(), x);
}

void check_matmul(const at::Tensor& a, const at::Tensor& b, const at::Tensor& a_range,
                  const at::Tensor& b_range, const at::Tensor& out_range,
                  const OpticalSettings& settings) {
  const char* op = "optical_matmul";
  check_floating(op, "a", a);
  check_like(op, "b", b, "a", a);
  const bool fit = a.dim() >= 2 && a.dim() == b.dim() && a.sym_size(-1) == b.sym_size(-2) &&
                   a.sym_sizes().slice(0, a.dim() - 2) == b.sym_sizes().slice(0, b.dim() - 2);
  TORCH_CHECK(fit, "refract::", op,
              ": expected a [..., T, K] and b [..., K, S] with equal leading dimensions, got ",
              a.sym_sizes(), " and ", b.sym_sizes());
  check_range(op, "a_range", a_range, a);
  check_range(op, "b_range", b_range, a);
  check_range(op, "out_range", out_range, a);
  check_settings(op, settings, 1, a);
}

EncodeResult encode(const at::Tensor& x, at::TensorList ranges, at::IntArrayRef splits,
                    REFRACT_OPTICAL_SETTINGS_PARAMETERS) {
  static const auto op = find_op<decltype(encode)>("refract::optical_encode");
  return op.call(x, ranges, splits, levels, lut_min, smooth, quantiles, train, ranges_set,
                 clipped_ranges, noise, shared_noise, clock, seed, streams);
}

}  // namespace optical_op

namespace composite {

OpticalOperand optical_encode(const at::Tensor& x, at::TensorList ranges, at::IntArrayRef splits,
                              const OpticalSettings& settings) {
  optical_op::check_encode(x, ranges, splits, settings);
  const at::Tensor rows = x.reshape({-1, x.size(-1)});
  std::vector<at::Tensor> used, seen;
  int64_t begin = 0;
  for (size_t m = 0; m < splits.size(); ++m) {
    const at::Tensor member = rows.narrow(0, begin, splits[m]);
    seen.push_back(optical_seen(member, settings.quantiles));
    used.push_back(optical_effective(ranges[m], seen.back()));
    begin += splits[m];
  }
  const auto options = x.options().dtype(at::kFloat);
  return {at::empty({0}, options), at::empty({0}, options), at::stack(used),
          at::stack(seen).unsqueeze(1)};
}

}  // namespace composite

namespace {

using optical_op::EncodeResult;

EncodeResult encode_plain(const at::Tensor& x, at::TensorList ranges, at::IntArrayRef splits,
                          REFRACT_OPTICAL_SETTINGS_PARAMETERS) {
  return optical_op::result_of(
      composite::optical_encode(x, ranges, splits, REFRACT_OPTICAL_SETTINGS_PACK));
}

EncodeResult encode_meta(const at::Tensor& x, at::TensorList ranges, at::IntArrayRef splits,
                         REFRACT_OPTICAL_SETTINGS_PARAMETERS) {
  const OpticalSettings settings = REFRACT_OPTICAL_SETTINGS_PACK;
  optical_op::check_encode(x, ranges, splits, settings);
  const auto options = x.options().dtype(at::kFloat);
  const auto members = static_cast<int64_t>(splits.size());
  const at::Tensor used = at::empty({members, 2}, options);
  if (!optical_op::has_kernel(x, settings)) {
    return {at::empty({0}, options), at::empty({0}, options), used,
            at::empty({members, 1, 2}, options)};
  }
  const bool cuda = x.device().is_cuda();
  return {at::empty_symint(x.sym_sizes(), options.dtype(cuda ? at::kHalf : at::kFloat)),
          at::empty_symint({optical_op::rows_of(x)}, options), used,
          at::empty({members, cuda ? optical_op::kEncodeParts : 1, 2}, options)};
}

}  // namespace

OpticalOperand optical_encode(const at::Tensor& x, at::TensorList ranges, at::IntArrayRef splits,
                              const OpticalSettings& settings) {
  return optical_op::operand_of(
      optical_op::encode(x, ranges, splits, REFRACT_OPTICAL_SETTINGS_UNPACK(settings)));
}

TORCH_LIBRARY_FRAGMENT(refract, m) {
  m.def("optical_encode(Tensor x, Tensor[] ranges, int[] splits, " REFRACT_OPTICAL_SETTINGS_SCHEMA
        ") -> (Tensor codes, Tensor sums, Tensor used, Tensor seen)");
}

TORCH_LIBRARY_IMPL(refract, CompositeExplicitAutograd, m) {
  m.impl("optical_encode", encode_plain);
}

TORCH_LIBRARY_IMPL(refract, Meta, m) { m.impl("optical_encode", encode_meta); }

}  // namespace refract
