#include "analysis/sensitivity.h"

#include <ATen/ops/argmax.h>
#include <ATen/ops/bincount.h>
#include <ATen/ops/sort.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <tuple>

namespace refract {
namespace {

constexpr int64_t kRowsLooked = 256;

// Different values in each row over the levels, on average.
double levels_of_rows(const at::Tensor& quantized, int64_t levels) {
  const at::Tensor rows = quantized.reshape({-1, quantized.size(-1)});
  const at::Tensor some = rows.narrow(0, 0, std::min(kRowsLooked, rows.size(0)));
  const at::Tensor sorted = std::get<0>(at::sort(some, -1));
  const int64_t n = sorted.size(-1);
  const at::Tensor steps = sorted.narrow(-1, 1, n - 1).ne(sorted.narrow(-1, 0, n - 1)).sum(-1);
  return steps.to(at::kDouble).add(1).mean().item<double>() / static_cast<double>(levels);
}

double levels_of_whole(const at::Tensor& quantized, int64_t levels) {
  const at::Tensor lo = quantized.min(), width = quantized.max().sub(lo);
  if (width.item<double>() <= 0) return 1.0 / static_cast<double>(levels);
  const at::Tensor level = quantized.sub(lo).div(width).mul(static_cast<double>(levels - 1));
  const at::Tensor counts = at::bincount(level.round().to(at::kLong).flatten(), {}, levels);
  return counts.gt(0).sum().item<double>() / static_cast<double>(levels);
}

}  // namespace

RoleStatistics role_statistics(const Observation& seen) {
  RoleStatistics found{seen.module, seen.role};
  const at::Tensor values = seen.values, size = values.abs();
  const int64_t width = values.size(-1), place = at::argmax(size).item<int64_t>();
  found.largest = size.max().item<double>();
  found.median = size.flatten().median().item<double>();
  found.channel = place % width;
  found.row = place / width;
  const at::Tensor quantized = seen.quantize(values);
  const double noise = quantized.sub(values).to(at::kDouble).square().sum().item<double>();
  const double signal = values.to(at::kDouble).square().sum().item<double>();
  found.snr_db = noise > 0 ? 10 * std::log10(std::max(signal, 1e-300) / noise)
                           : std::numeric_limits<double>::infinity();
  found.levels_in_use = seen.by_row ? levels_of_rows(quantized, seen.levels)
                                    : levels_of_whole(quantized, seen.levels);
  return found;
}

}  // namespace refract
