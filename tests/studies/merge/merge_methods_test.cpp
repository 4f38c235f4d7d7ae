#include "studies/merge/merge_methods.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>
#include <gtest/gtest.h>

#include <cmath>

#include "support/tolerances.h"

namespace refract {
namespace merge_methods_test {

using testing::expect_close;

at::Tensor row(const std::vector<double>& values) { return at::tensor(values).to(at::kFloat); }

MergeSettings settings_of(const std::string& method, std::vector<double> weights) {
  MergeSettings settings;
  settings.method = method;
  settings.weights = std::move(weights);
  return settings;
}

TEST(MergeMethods, LinearIsTheMeanByWeights) {
  const at::Tensor merged =
      merge_tensors("x", {row({1, 2}), row({5, -2})}, {}, settings_of("linear", {3, 1}));
  EXPECT_TRUE(at::equal(merged, row({2, 1})));
}

TEST(MergeMethods, SlerpKeepsAnglesAndLengths) {
  const at::Tensor a = row({3, 0, 0, 0}).view({2, 2}), b = row({0, 0, 0, 3}).view({2, 2});
  MergeSettings settings = settings_of("slerp", {1, 1});
  settings.t = 1.0 / 3;  // a right angle is cut at 30 degrees
  const at::Tensor arc = row({3 * std::cos(M_PI / 6), 0, 0, 3 * std::sin(M_PI / 6)});
  expect_close(merge_tensors("x", {a, b}, {}, settings), arc.view({2, 2}), "arc");
  expect_close(merge_tensors("x", {a, 4 * a}, {}, settings), 2 * a, "line");
  settings.t = 0;
  expect_close(merge_tensors("x", {a, b}, {}, settings), a, "start");
  settings.t = 1;
  expect_close(merge_tensors("x", {a, b}, {}, settings), b, "end");
}

TEST(MergeMethods, TaskVectorsAddUp) {
  MergeSettings settings = settings_of("task_arithmetic", {1, 2});
  settings.lambda = 0.5;
  const at::Tensor merged = merge_tensors("x", {row({2, 1}), row({1, 0})}, row({1, 1}), settings);
  EXPECT_TRUE(at::equal(merged, row({1 + 0.5 * (1 + 0), 1 + 0.5 * (0 - 2)})));
}

TEST(MergeMethods, TiesKeepsTheLargestThatAgree) {
  MergeSettings settings = settings_of("ties", {1, 1});
  settings.density = 0.5;
  // Kept of the first: 4 and -3; of the second: 2 and 5. Place 0: both agree, the mean of 4 and 2.
  // Place 1: -3 and 5, the sum is positive, 5 alone. Places 2 and 3: nothing is kept.
  const at::Tensor base = row({10, 10, 10, 10});
  const at::Tensor merged = merge_tensors(
      "x", {base + row({4, -3, 1, 0.5}), base + row({2, 5, -1, 0.5})}, base, settings);
  EXPECT_TRUE(at::equal(merged, row({13, 15, 10, 10})));
}

TEST(MergeMethods, DareKeepsTheMeanAndItsShare) {
  const int64_t n = 100000;
  const at::Tensor base = at::zeros({n}), model = at::zeros({n}).fill_(2);
  MergeSettings settings = settings_of("dare", {1});
  settings.density = 0.25;
  const at::Tensor merged = merge_tensors("x", {model}, base, settings);
  const double kept = merged.ne(0).to(at::kFloat).mean().item<double>();
  EXPECT_NEAR(kept, 0.25, 4 * std::sqrt(0.25 * 0.75 / n));
  EXPECT_TRUE(merged.masked_select(merged.ne(0)).eq(8).all().item<bool>());
  EXPECT_TRUE(at::equal(merged, merge_tensors("x", {model}, base, settings)));
  EXPECT_FALSE(at::equal(merged, merge_tensors("y", {model}, base, settings)));
  settings.seed = 2;
  EXPECT_FALSE(at::equal(merged, merge_tensors("x", {model}, base, settings)));
  settings.density = 1;
  EXPECT_TRUE(at::equal(merge_tensors("x", {model}, base, settings), model));
}

TEST(MergeMethods, EqualModelsStayAsTheyAre) {
  const at::Tensor w = at::randn({5, 7}), base = at::randn({5, 7});
  for (const std::string& method : merge_methods()) {
    MergeSettings settings = settings_of(method, {0.5, 0.5});
    settings.density = 1;
    expect_close(merge_tensors("w", {w, w}, base, settings), w, method);
    expect_close(merge_tensors("w", {w.to(at::kBFloat16), w.to(at::kBFloat16)}, base, settings),
                 w.to(at::kBFloat16).to(at::kFloat), method + " of bf16");
  }
}

}  // namespace merge_methods_test
}  // namespace refract
