#include "train/schedule.h"

#include <gtest/gtest.h>

#include <cmath>
#include <string>

namespace refract {
namespace {

RunConfig schedule_config(const std::string& kind) {
  RunConfig config;
  config.optimizer.lr = 6e-4;
  config.schedule = {kind, 10, 0.1, 0.1};
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

}  // namespace
}  // namespace refract
