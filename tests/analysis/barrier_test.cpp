#include "analysis/barrier.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <vector>

namespace refract {
namespace barrier_test {

TEST(Barrier, AgainstNumbersWorkedOutByHand) {
  // B has 2, A has 4: the chord is 2, 2.5, 3, 3.5, 4.
  const std::vector<double> alphas = {0, 0.25, 0.5, 0.75, 1}, values = {2, 4.5, 4, 4.75, 4};
  const Barrier barrier = barrier_of(alphas, values);
  EXPECT_DOUBLE_EQ(barrier.end_point_mean, 3);
  EXPECT_DOUBLE_EQ(barrier.instability, 1.75);
  EXPECT_DOUBLE_EQ(barrier.instability_alpha, 0.75);
  EXPECT_DOUBLE_EQ(barrier.barrier, 2);
  EXPECT_DOUBLE_EQ(barrier.barrier_alpha, 0.25);
  EXPECT_DOUBLE_EQ(barrier.relative_instability(), 1.75 / 3);
  EXPECT_DOUBLE_EQ(barrier.relative_barrier(), 2.0 / 3);
}

TEST(Barrier, AConvexPathHasNone) {
  const std::vector<double> alphas = {0, 0.5, 1}, values = {1, 0.5, 3};
  const Barrier barrier = barrier_of(alphas, values);
  EXPECT_EQ(barrier.barrier, 0);
  EXPECT_DOUBLE_EQ(barrier.instability, 1);  // the worse end point above the mean
}

TEST(Barrier, EndPointsAreOnTheChordWhateverTheRounding) {
  const std::vector<double> alphas = {0, 1};
  for (double a : {0.1, 1.0 / 3, 1e-300, 7.7e15}) {
    EXPECT_EQ(barrier_of(alphas, std::vector<double>{0.7, a}).barrier, 0) << a;
  }
}

TEST(Barrier, ValuesThatAreNotFiniteAreNotHidden) {
  const double inf = std::numeric_limits<double>::infinity(), nan = std::nan("");
  const std::vector<double> alphas = {0, 0.25, 0.5, 0.75, 1};
  EXPECT_EQ(barrier_of(alphas, std::vector<double>{1, 2, inf, 2, 1}).barrier, inf);
  EXPECT_TRUE(std::isnan(barrier_of(alphas, std::vector<double>{1, 2, nan, 9, 1}).barrier));
  EXPECT_TRUE(std::isnan(barrier_of(alphas, std::vector<double>{1, 2, nan, 9, 1}).instability));
}

}  // namespace barrier_test
}  // namespace refract
