#include "analysis/plane.h"

#include <ATen/ops/zeros.h>
#include <gtest/gtest.h>

#include "core/error.h"

namespace refract {
namespace plane_test {

Weights at_point(double x, double y, double z) {
  Weights weights{at::zeros({3}), {}};
  weights.parameters[0] = x;
  weights.parameters[1] = y;
  weights.parameters[2] = z;
  return weights;
}

TEST(Plane, CornersAndDistancesAreThoseOfTheWeights) {
  const std::vector<Weights> corners = {at_point(1, 1, 1), at_point(4, 5, 1), at_point(1, 1, 3)};
  const Plane plane(corners);
  const auto places = plane.corners();
  EXPECT_DOUBLE_EQ(places[1][0], 5);
  EXPECT_NEAR(places[2][0], 0, 1e-12);
  EXPECT_DOUBLE_EQ(places[2][1], 2);
  for (size_t i = 0; i < 3; ++i)
    EXPECT_EQ(corner_of(plane.coefficients(places[i][0], places[i][1])), static_cast<int64_t>(i));
  // Any two points of the plane are as far from each other as their weights.
  const double points[2][2] = {{-1, 0.5}, {3, 7}};
  Weights at[2];
  for (int i = 0; i < 2; ++i)
    at[i] = combine(corners, plane.coefficients(points[i][0], points[i][1]));
  EXPECT_NEAR(geometry_of(at[0], at[1]).distance, std::hypot(4, 6.5), 1e-5);
}

TEST(Plane, RefusesThreePointsOfALine) {
  const std::vector<Weights> corners = {at_point(0, 0, 0), at_point(1, 1, 0), at_point(3, 3, 0)};
  EXPECT_THROW(Plane{corners}, Error);
}

TEST(Plane, AnAxisReachesPastItsEnds) {
  EXPECT_EQ(axis(0, 10, 3, 0.2), (std::vector<double>{-2, 5, 12}));
}

}  // namespace plane_test
}  // namespace refract
