#include "report/divergence.h"

#include <gtest/gtest.h>

#include <limits>
#include <map>
#include <string>
#include <vector>

namespace refract {
namespace divergence_test {

Curve curve(std::vector<double> values, double first_step = 10) {
  Curve out;
  for (size_t i = 0; i < values.size(); ++i) {
    out.steps.push_back(first_step + 10 * static_cast<double>(i));
  }
  out.values = std::move(values);
  return out;
}

TEST(Divergence, ALearningRunHasNot) {
  EXPECT_EQ(divergence({}, 0.5), "");
  EXPECT_EQ(divergence({{"mean_loss", curve({4, 3, 2, 1})}}, 0.5), "");
}

TEST(Divergence, ASpikeIsSmoothedAway) {
  // The average moves by at most 0.2 of the spike once it has settled: 0.2 * 2 < 0.5.
  EXPECT_EQ(divergence({{"mean_loss", curve({4, 4, 4, 4, 4, 4, 4, 4, 4, 6, 4, 4})}}, 0.5), "");
}

TEST(Divergence, ALossThatStaysAboveItsStartIs) {
  const auto metrics = [](double level) {
    return std::map<std::string, Curve>{{"mean_loss", curve({4, level, level, level, level})}};
  };
  // The average after n points of which the first is 4 and the others L lies 4 + w (L - 4), with
  // w = 1 - 0.8^(n-1) * 0.2 / (1 - 0.8^n): 0.878 after five.
  EXPECT_EQ(divergence(metrics(4.5), 0.5), "");
  EXPECT_EQ(divergence(metrics(4.56), 0.5), "");
  EXPECT_EQ(divergence(metrics(4.58), 0.5),
            "the smoothed loss is 4.509 at step 50, 4.000 at the start");
  EXPECT_EQ(divergence(metrics(4.58), 0.6), "");
}

TEST(Divergence, MeasuresFromTheFirstEvaluation) {
  std::map<std::string, Curve> metrics = {{"mean_loss", curve({5, 5, 5})}};
  EXPECT_EQ(divergence(metrics, 0.5), "");
  metrics["validation_loss"] = curve({4.2}, 0);
  EXPECT_EQ(divergence(metrics, 0.5), "the smoothed loss is 5.000 at step 30, 4.200 at the start");
  metrics["validation_loss"] = curve({4.2}, 100);  // not of the start
  EXPECT_EQ(divergence(metrics, 0.5), "");
}

TEST(Divergence, WhatIsNotFiniteIs) {
  const double nan = std::numeric_limits<double>::quiet_NaN();
  EXPECT_EQ(divergence({{"grad_norm", curve({1, nan})}}, 1e9),
            "grad_norm is not finite at step 20");
}

}  // namespace divergence_test
}  // namespace refract
