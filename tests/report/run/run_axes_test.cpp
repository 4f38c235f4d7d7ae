#include "report/run/run_axes.h"

#include <gtest/gtest.h>

#include <cmath>

namespace refract {
namespace run_axes_test {

RunRecord run_of_three() {
  RunRecord run;
  run.metrics["step_ms"] = {{10, 20, 40}, {100, 200, 50}};
  run.metrics["step_flops"] = {{10, 20, 40}, {5, 5, 2}};
  run.metrics["tokens"] = {{10, 20, 40}, {1000, 2000, 4000}};
  return run;
}

TEST(RunAxes, WhatEachStepTookIsSummed) {
  const Curve seconds = training_seconds_by_step(run_of_three());
  EXPECT_EQ(seconds.steps, (std::vector<double>{0, 10, 20, 40}));
  EXPECT_EQ(seconds.values, (std::vector<double>{0, 1, 3, 4}));
  EXPECT_EQ(training_flops_by_step(run_of_three()).last(), 50 + 50 + 40);
  EXPECT_TRUE(training_flops_by_step({}).steps.empty());
}

TEST(RunAxes, ValuesLieOnStraightLines) {
  const Curve curve{{0, 10, 20}, {0, 1, 3}};
  EXPECT_EQ(value_at(curve, 0), 0);
  EXPECT_EQ(value_at(curve, 5), 0.5);
  EXPECT_EQ(value_at(curve, 15), 2);
  EXPECT_EQ(value_at(curve, 30), 5);
  EXPECT_TRUE(std::isnan(value_at({}, 1)));
}

TEST(RunAxes, EachSeriesGetsTheAxesOfItsRun) {
  RunRecord bare;
  bare.metrics["tokens"] = {{10}, {500}};
  PlotSpec plot;
  plot.series = {{.x = {0, 10}, .y = {1, 2}}, {.x = {10}, .y = {3}}};
  add_other_axes(plot, {run_of_three(), bare}, {0, 1});
  ASSERT_EQ(plot.other_x, (std::vector<std::string>{"training tokens", "training FLOPs",
                                                    "training time (minutes)"}));
  EXPECT_EQ(plot.series[0].other_x[0], (std::vector<double>{0, 1000}));
  EXPECT_EQ(plot.series[0].other_x[1], (std::vector<double>{0, 50}));
  EXPECT_EQ(plot.series[0].other_x[2], (std::vector<double>{0, 1.0 / 60}));
  EXPECT_EQ(plot.series[1].other_x[0], std::vector<double>{500});
  EXPECT_TRUE(std::isnan(plot.series[1].other_x[1][0]));
  PlotSpec none;
  none.series = {{.x = {0}, .y = {1}}};
  add_other_axes(none, {RunRecord{}}, {0});
  EXPECT_TRUE(none.other_x.empty());
}

}  // namespace run_axes_test
}  // namespace refract
