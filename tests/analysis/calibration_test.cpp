// The search for ranges, and which modules a proposal takes.
#include "analysis/calibration.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/full.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/stack.h>
#include <gtest/gtest.h>

#include "analysis/sensitivity.h"
#include "core/error.h"

namespace refract {
namespace calibration_test {

at::Tensor found(const at::Tensor& values, const std::string& method, int64_t rows = 0,
                 int64_t levels = 64) {
  RangeStatistics statistics(rows);
  statistics.add(values);
  return statistics.range({method, 0.01, 0.99}, {levels, 0});
}

double error_with(const at::Tensor& x, const at::Tensor& range, int64_t levels) {
  const double lo = range[0].item<double>(), hi = range[1].item<double>();
  const double step = (hi - lo) / static_cast<double>(levels - 1);
  const at::Tensor q = x.clamp(lo, hi).sub(lo).div(step).round().mul(step).add(lo);
  return q.sub(x).to(at::kDouble).square().mean().item<double>();
}

TEST(CalibrationTest, MinMaxIsExactOverSeveralBatches) {
  RangeStatistics statistics(0);
  const at::Tensor a = at::randn({100}), b = at::randn({50}).mul(3);
  statistics.add(a);
  statistics.add(b);
  const at::Tensor all = at::cat({a, b});
  EXPECT_TRUE(at::equal(statistics.range({}, {}), at::stack({all.min(), all.max()})));
}

TEST(CalibrationTest, QuantilesAreThoseOfTheValues) {
  const at::Tensor x = at::randn({200000});
  const at::Tensor range = found(x, "quantile");
  EXPECT_NEAR(range[0].item<double>(), -2.326, 0.03);
  EXPECT_NEAR(range[1].item<double>(), 2.326, 0.03);
}

// Normal values at 16 levels: the best range is known, +-2.6 within some percent (Lloyd's problem
// for a uniform quantizer), and the widest is far from it.
TEST(CalibrationTest, MseBeatsTheWidestRangeAndIsNearTheBest) {
  const at::Tensor x = at::randn({200000}), range = found(x, "mse", 0, 16);
  EXPECT_NEAR(range[1].item<double>(), 2.6, 0.3);
  EXPECT_NEAR(range[0].item<double>(), -2.6, 0.3);
  double best = 1e30;
  for (int step = 0; step < 200; ++step) {
    const double end = 1 + 0.02 * step;
    best = std::min(
        best,
        error_with(x, at::full({2}, end).mul(at::stack({at::full({}, -1.0), at::full({}, 1.0)})),
                   16));
  }
  EXPECT_LT(error_with(x, range, 16), 1.05 * best);
  EXPECT_LT(error_with(x, range, 16), 0.7 * error_with(x, found(x, "minmax"), 16));
}

TEST(CalibrationTest, KlLeavesOutAFewFarValues) {
  at::Tensor x = at::randn({100000});
  x[5] = 3000;
  const double hi = found(x, "kl", 0, 256)[1].item<double>();
  EXPECT_LT(hi, 30);
  EXPECT_GT(hi, 2);
  EXPECT_GT(found(x, "minmax")[1].item<double>(), 2999);
}

TEST(CalibrationTest, RowsHaveRangesOfTheirOwn) {
  at::Tensor rows = at::randn({3, 4000});
  rows.select(0, 1).mul_(100);
  for (const char* method : {"minmax", "quantile", "mse", "kl"}) {
    const at::Tensor range = found(rows, method, 3, 64);
    ASSERT_EQ(range.sizes(), (std::vector<int64_t>{3, 2})) << method;
    const double ratio = (range[1][1] / range[0][1]).item<double>();
    EXPECT_GT(ratio, 60) << method;
    EXPECT_LT(ratio, 160) << method;
  }
}

TEST(CalibrationTest, RefusesUnknownMethods) {
  EXPECT_THROW(found(at::randn({4}), "median"), Error);
  EXPECT_THROW(check_range_search({"quantile", 0.9, 0.1}), Error);
}

Observation observation(const at::Tensor& values, double step) {
  Observation seen;
  seen.module = "m";
  seen.role = "x";
  seen.values = values;
  seen.levels = 256;
  seen.quantize = [step](const at::Tensor& x) { return x.div(step).round().mul(step); };
  return seen;
}

TEST(SensitivityTest, StatisticsNameThePlantedElement) {
  at::Tensor x = at::randn({40, 16});
  x[7][3] = 500;
  const RoleStatistics found = role_statistics(observation(x, 2.0));
  EXPECT_EQ(found.channel, 3);
  EXPECT_EQ(found.row, 7);
  EXPECT_DOUBLE_EQ(found.largest, 500);
  EXPECT_GT(found.ratio(), 300);
  EXPECT_LT(found.levels_in_use, 0.05);
  // Noise of even rounding is step^2 / 12 for each element: 10 log10(12 / 0.01^2 / 1) = 50.8 dB.
  EXPECT_NEAR(role_statistics(observation(at::randn({400, 160}), 0.01)).snr_db, 50.8, 0.3);
}

}  // namespace calibration_test
}  // namespace refract
