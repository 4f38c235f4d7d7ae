#include "analysis/matching/clusters.h"

#include <gtest/gtest.h>

#include <cmath>

namespace refract {
namespace clusters_test {

using Clusters = std::vector<std::vector<int64_t>>;

TEST(Clusters, ChainsJoinAndWallsPart) {
  const double nan = std::nan("");
  // 0 - 2 and 2 - 3 are below, 0 - 3 is not; 1 stands alone; what is not a number joins nothing.
  const std::vector<std::vector<double>> matrix = {
      {0, 1, 0.01, 0.5}, {1, 0, nan, 1}, {0.01, nan, 0, 0.019}, {0.5, 1, 0.019, 0}};
  EXPECT_EQ(clusters_of(matrix, 0.02), (Clusters{{0, 2, 3}, {1}}));
  EXPECT_EQ(clusters_of(matrix, 0.015), (Clusters{{0, 2}, {1}, {3}}));
  EXPECT_EQ(clusters_of(matrix, 0.01), (Clusters{{0}, {1}, {2}, {3}}));
}

TEST(MeanAndSpread, IsTheSampleDeviation) {
  const MeanAndSpread values = mean_and_spread({2, 4, 4, 4, 5, 5, 7, 9});
  EXPECT_DOUBLE_EQ(values.mean, 5);
  EXPECT_DOUBLE_EQ(values.deviation, std::sqrt(32.0 / 7));
  EXPECT_TRUE(std::isnan(mean_and_spread({3}).deviation));
}

}  // namespace clusters_test
}  // namespace refract
