#include "bench/timing.h"

#include <ATen/ops/full.h>
#include <gtest/gtest.h>

#include <chrono>
#include <cmath>
#include <thread>

#include "core/error.h"

namespace refract {
namespace timing_test {

TEST(Timing, SleepingTakesAsLongAsItSays) {
  const auto sleep = [] { std::this_thread::sleep_for(std::chrono::milliseconds(4)); };
  const Timing timing = time_work(at::kCPU, 0.02, sleep);
  EXPECT_GE(timing.fastest_ms, 4);
  EXPECT_LE(timing.fastest_ms, timing.median_ms);
  EXPECT_LE(timing.median_ms, timing.slowest_ms);
  EXPECT_GE(timing.repeats, 3);
  EXPECT_GE(seconds_of(at::kCPU, sleep), 0.004);
}

TEST(Timing, TheMedianIsTheMiddleOne) {
  EXPECT_EQ(median({3, 1, 2}), 2);
  EXPECT_EQ(median({4, 1, 2, 3}), 3);
}

// |1.25 - 1| / |1| in every element, exact in binary.
TEST(Timing, AWrongResultIsRefused) {
  const at::Tensor one = at::full({4}, 1.0), more = at::full({4}, 1.25);
  EXPECT_EQ(relative_difference(more, one), 0.25);
  EXPECT_NO_THROW(check_against(one, one, "one"));
  EXPECT_THROW(check_against(more, one, "more"), Error);
  EXPECT_THROW(check_against(at::full({4}, std::nan("")), one, "a NaN"), Error);
}

}  // namespace timing_test
}  // namespace refract
