// Settings, checks and the output of the optical products; optical_encode.
#include "ops/optical/matmul/product.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/stack.h>

#include <string>

#include "ops/common/check.h"
#include "ops/common/define.h"
#include "ops/optical/quantize/quantization_math.h"
#include "ops/optical/quantize/quantize.h"

namespace refract {
namespace optical_op {
namespace {

c10::SymInt rows_of(const at::Tensor& x) {
  c10::SymInt rows = 1;
  for (const auto& size : x.sym_sizes().slice(0, x.dim() - 1)) rows = rows * size;
  return rows;
}

}  // namespace

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

void check_encode(const OpticalEncodeInputs& in) {
  const char* op = "optical_encode";
  check_floating(op, "x", in.x);
  TORCH_CHECK(in.x.dim() >= 1, "refract::", op, ": expected x of shape [..., K], got a scalar");
  check_splits(op, "x", in.splits, rows_of(in.x));
  check_ranges(op, "ranges", in.ranges, in.splits.size(), in.x);
  check_levels(op, in.settings.levels, in.settings.lut_min);
  check_quantiles(op, in.settings.quantiles);
}

}  // namespace optical_op

namespace composite {

OpticalOperand optical_encode(const OpticalEncodeInputs& in) {
  optical_op::check_encode(in);
  const at::Tensor rows = in.x.reshape({-1, in.x.size(-1)});
  std::vector<at::Tensor> used, seen;
  int64_t begin = 0;
  for (size_t m = 0; m < in.splits.size(); ++m) {
    const at::Tensor member = rows.narrow(0, begin, in.splits[m]);
    seen.push_back(optical_seen(member, in.settings.quantiles));
    used.push_back(optical_effective(in.ranges[m], seen.back()));
    begin += in.splits[m];
  }
  const auto options = in.x.options().dtype(at::kFloat);
  return {at::empty({0}, options), at::empty({0}, options), at::stack(used),
          at::stack(seen).unsqueeze(1)};
}

at::Tensor optical_output(const at::Tensor& product, const MaybeTensor& bias,
                          const at::Tensor& range, const OpticalSettings& s, size_t member) {
  const at::Tensor used = optical_effective(range, optical_seen(product, s.quantiles));
  const int64_t stream = member < s.streams.size() ? s.streams[member] : 0;
  const at::Tensor xi = optical_xi(product.sizes(), product.device(), s.noise, s.shared_noise,
                                   s.clock, s.seed, stream);
  at::Tensor y = optical_values(optical_levels(product, used, s.levels, xi), used, s.levels, 0);
  if (bias.has_value()) y = y.add(bias->to(y.scalar_type()));
  if (s.train) {
    const at::Tensor seen = optical_seen(s.clipped_ranges ? y : product, s.quantiles);
    optical_move_(range, s.clipped_ranges ? used : range, seen, s.smooth);
  }
  return y;
}

}  // namespace composite

namespace {

OpticalOperand encode_meta(const OpticalEncodeInputs& in) {
  optical_op::check_encode(in);
  const auto options = in.x.options().dtype(at::kFloat);
  const auto members = static_cast<int64_t>(in.splits.size());
  const at::Tensor used = at::empty({members, 2}, options);
  if (!optical_op::has_kernel(in.x, in.settings)) {
    return {at::empty({0}, options), at::empty({0}, options), used,
            at::empty({members, 1, 2}, options)};
  }
  // Half types without numbers stand for a GPU's.
  const bool cuda = in.x.device().is_cuda() ||
                    (in.x.device().is_meta() && at::isReducedFloatingType(in.x.scalar_type()));
  return {at::empty_symint(in.x.sym_sizes(), options.dtype(cuda ? at::kHalf : at::kFloat)),
          at::empty_symint({optical_op::rows_of(in.x)}, options), used,
          at::empty({members, cuda ? optical_op::kEncodeParts : 1, 2}, options)};
}

}  // namespace

TORCH_LIBRARY_FRAGMENT(refract, m) {
  define(m, optical_encode,
         std::string("(Tensor x, Tensor[] ranges, int[] splits, ") + optical_op::kSettings +
             ") -> (Tensor codes, Tensor sums, Tensor used, Tensor seen)")
      .composite<composite::optical_encode>()
      .meta<encode_meta>();
}

}  // namespace refract
