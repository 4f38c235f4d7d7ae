#include "report/run/range_map.h"

#include <gtest/gtest.h>

#include <cmath>

namespace refract {
namespace range_map_test {

TEST(RangeMap, IsLayersByRoles) {
  const MatrixSpec map =
      range_map({{"model.layers.0.self_attn", "attention, q", {1}, {-3}, {2}},
                 {"model.layers.0.mlp.up_proj", "x_range", {1, 2}, {-9, -1}, {0, 4}},
                 {"model.layers.2.mlp.up_proj", "x_range", {2}, {-8}, {4}},
                 {"head", "out_range", {2}, {0}, {1}}});
  EXPECT_EQ(map.rows, (std::vector<std::string>{"0", "2", "other"}));
  EXPECT_EQ(map.columns, (std::vector<std::string>{"attention, q", "up_proj, x", "head, out"}));
  EXPECT_TRUE(map.log_colors);
  EXPECT_EQ(map.values[0][0], 3);
  EXPECT_EQ(map.values[0][1], 4);  // of the newest checkpoint
  EXPECT_EQ(map.values[1][1], 8);
  EXPECT_EQ(map.values[2][2], 1);
  EXPECT_TRUE(std::isnan(map.values[1][0]));
}

}  // namespace range_map_test
}  // namespace refract
