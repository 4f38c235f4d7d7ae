#include "train/schedule.h"

#include <gtest/gtest.h>

#include <cmath>
#include <string>

namespace refract {
namespace schedule_test {

RunConfig schedule_config(const std::string& kind) {
  RunConfig config;
  config.optimizer.lr = 6e-4;
  config.schedule.kind = kind;
  config.schedule.warmup = 10;
  config.schedule.start = 0.1;
  config.schedule.final = 0.1;
  return config;
}

TEST(Schedule, WarmsUpLinearlyFromItsStart) {
  const RunConfig config = schedule_config("cosine");
  EXPECT_NEAR(learning_rate(config, 0, 110), 6e-4 * (0.1 + 0.9 * 0.1), 1e-12);
  EXPECT_NEAR(learning_rate(config, 9, 110), 6e-4, 1e-12);
  EXPECT_NEAR(learning_rate(config, 10, 110), 6e-4, 1e-12);
}

TEST(Schedule, ComesDownInItsShape) {
  EXPECT_NEAR(learning_rate(schedule_config("cosine"), 60, 110), 6e-4 * (0.1 + 0.9 * 0.5), 1e-12);
  EXPECT_NEAR(learning_rate(schedule_config("cosine"), 35, 110),
              6e-4 * (0.1 + 0.9 * (1 + std::sqrt(0.5)) / 2), 1e-12);
  EXPECT_NEAR(learning_rate(schedule_config("linear"), 35, 110), 6e-4 * (0.1 + 0.9 * 0.75), 1e-12);
  EXPECT_NEAR(learning_rate(schedule_config("linear"), 110, 110), 6e-5, 1e-12);
  EXPECT_NEAR(learning_rate(schedule_config("constant"), 100, 110), 6e-4, 1e-12);
}

TEST(Schedule, WarmupMayBeAFraction) {
  RunConfig config = schedule_config("cosine");
  config.schedule.warmup = 0.25;
  EXPECT_EQ(warmup_steps(config, 1000), 250);
  config.schedule.warmup = 0;
  EXPECT_EQ(warmup_steps(config, 1000), 0);
  EXPECT_NEAR(learning_rate(config, 0, 1000), 6e-4, 1e-12);
}

TEST(Schedule, WarmUpMayCountFromZero) {
  RunConfig config = schedule_config("cosine");
  config.schedule.warmup_from = 0;
  EXPECT_NEAR(learning_rate(config, 0, 110), 6e-5, 1e-12);
  EXPECT_NEAR(learning_rate(config, 9, 110), 6e-4 * (0.1 + 0.9 * 0.9), 1e-12);
  EXPECT_NEAR(learning_rate(config, 10, 110), 6e-4, 1e-12);
}

TEST(Schedule, RestartsTheCosine) {
  RunConfig config = schedule_config("cosine_with_restarts");
  config.schedule.cycles = 2;
  for (const int64_t step : {10, 60}) EXPECT_NEAR(learning_rate(config, step, 110), 6e-4, 1e-12);
  for (const int64_t step : {35, 85})
    EXPECT_NEAR(learning_rate(config, step, 110), 6e-4 * (0.1 + 0.9 * 0.5), 1e-12);
  EXPECT_NEAR(learning_rate(config, 110, 110), 6e-5, 1e-12);
}

TEST(Schedule, FallsAsAPower) {
  RunConfig config = schedule_config("polynomial");
  config.schedule.power = 2;
  EXPECT_NEAR(learning_rate(config, 60, 110), 6e-4 * (0.1 + 0.9 * 0.25), 1e-12);
  EXPECT_NEAR(learning_rate(config, 110, 110), 6e-5, 1e-12);
  config.schedule.power = 1;
  EXPECT_NEAR(learning_rate(config, 35, 110), learning_rate(schedule_config("linear"), 35, 110),
              1e-15);
}

// A milestone below 1 is cut off, not rounded: 0.305 of 110 steps is step 33.
TEST(Schedule, FallsAtMilestonesOfTheWholeRun) {
  RunConfig config = schedule_config("multistep");
  config.schedule.milestones = {0.305, 60};
  config.schedule.gamma = 0.5;
  EXPECT_NEAR(learning_rate(config, 32, 110), 6e-4, 1e-12);
  EXPECT_NEAR(learning_rate(config, 33, 110), 3e-4, 1e-12);
  EXPECT_NEAR(learning_rate(config, 59, 110), 3e-4, 1e-12);
  EXPECT_NEAR(learning_rate(config, 109, 110), 1.5e-4, 1e-12);
}

}  // namespace schedule_test
}  // namespace refract
