#include "runs/progress/time_budget.h"

#include <ATen/ops/equal.h>
#include <gtest/gtest.h>

#include "core/files.h"
#include "support/training.h"

namespace refract {
namespace time_budget_test {

Dataset tiny_data() { return {nullptr, tiny_stream(), tiny_stream(2), "tiny"}; }

RunConfig timed_config(const std::string& name) {
  RunConfig config = tiny_config(name);
  resolve(config.model, 16, config.data.context);
  config.train.steps = 0;
  config.train.minutes = 0.01;
  return config;
}

TEST(TimeBudget, StepsAreRoundedDownToTwoDigits) {
  EXPECT_EQ(steps_within(2, 0.06), 2000);
  EXPECT_EQ(steps_within(2, 0.0617), 1900);
  EXPECT_EQ(steps_within(2, 0.1), 1200);
  EXPECT_EQ(steps_within(2, 0.0001), 1200000);
  EXPECT_EQ(steps_within(1, 0.44), 130);
}

TEST(TimeBudget, ASlowMachineTrainsAHundredSteps) {
  EXPECT_EQ(steps_within(2, 10), 100);
  EXPECT_EQ(steps_within(2, 1e9), 100);
  EXPECT_EQ(steps_within(0.001, 1), 100);
}

// The run that follows is the one that train.steps gives: nothing of the measurement is left.
TEST(TimeBudget, TheRunIsThatOfItsSteps) {
  RunConfig config = timed_config("timed");
  settle_steps(config, tiny_data(), "", at::kCPU, "the test's recipe", false);
  EXPECT_GE(config.train.steps, 100);
  EXPECT_EQ(config.train.minutes, 0.01);
  config.train.steps = 12;
  TinyRun timed(config);
  timed.trainer->run();
  TinyRun plain(tiny_config("plain"));
  plain.trainer->run();
  EXPECT_TRUE(at::equal(timed.model->arena().master(), plain.model->arena().master()));
}

TEST(TimeBudget, StepsAndTokensDecideWhereTheyAreSet) {
  RunConfig config = timed_config("steps");
  config.train.steps = 7;
  settle_steps(config, tiny_data(), "", at::kCPU, "x", false);
  EXPECT_EQ(config.train.steps, 7);
  config.train.steps = 0;
  config.train.tokens = "64";
  settle_steps(config, tiny_data(), "", at::kCPU, "x", false);
  EXPECT_EQ(config.train.steps, 0);
}

TEST(TimeBudget, AResumedRunKeepsItsNumber) {
  const RunConfig first = tiny_config("resumed");
  TinyRun run(first);
  run.trainer->run();
  write_run_settings(run.session);
  RunConfig config = first;
  resolve(config.model, 16, config.data.context);
  config.train.steps = 0;
  config.train.minutes = 1e-9;
  settle_steps(config, tiny_data(), "", at::kCPU, "x", true);
  EXPECT_EQ(config.train.steps, 12);
}

std::string warning(const RunConfig& config, int64_t steps) {
  ::testing::internal::CaptureStderr();
  warn_of_long_warmup(config, steps);
  return ::testing::internal::GetCapturedStderr();
}

TEST(TimeBudget, AWarmUpThatFillsTheRunIsSaid) {
  RunConfig config;
  config.schedule.warmup = 100;
  EXPECT_NE(warning(config, 100).find("schedule.warmup = 100"), std::string::npos);
  EXPECT_NE(warning(config, 40).find("the run has 40"), std::string::npos);
  EXPECT_EQ(warning(config, 101), "");
  config.schedule.warmup = 0.05;
  EXPECT_EQ(warning(config, 100), "");
  config.schedule.warmup = 0.999;  // rounds to all of them
  EXPECT_NE(warning(config, 100), "");
}

}  // namespace time_budget_test
}  // namespace refract
