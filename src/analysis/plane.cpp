#include "analysis/plane.h"

#include <cmath>

#include "core/error.h"

namespace refract {

Plane::Plane(std::span<const Weights> corners) {
  const double ab = geometry_of(corners[0], corners[1]).distance,
               ac = geometry_of(corners[0], corners[2]).distance,
               bc = geometry_of(corners[1], corners[2]).distance;
  distance_ab_ = ab;
  c_x_ = ab > 0 ? (ab * ab + ac * ac - bc * bc) / (2 * ab) : 0;
  const double square = ac * ac - c_x_ * c_x_;
  if (!(ab > 0) || !(square > 1e-10 * ac * ac)) {
    fail_usage("the three models lie on one line, so no plane goes through them alone");
  }
  c_y_ = std::sqrt(square);
}

std::array<std::array<double, 2>, 3> Plane::corners() const {
  return {{{0, 0}, {distance_ab_, 0}, {c_x_, c_y_}}};
}

std::vector<double> Plane::coefficients(double x, double y) const {
  const double c = y == c_y_ ? 1 : y / c_y_;
  if (c == 1 && x == c_x_) return {0, 0, 1};
  const double b = (x - c * c_x_) / distance_ab_;
  return {1 - b - c, b, c};
}

std::vector<double> axis(double low, double high, int64_t n, double margin) {
  const double wide = high - low, from = low - margin * wide, to = high + margin * wide;
  std::vector<double> values;
  for (int64_t i = 0; i < n; ++i)
    values.push_back(from + (to - from) * static_cast<double>(i) / static_cast<double>(n - 1));
  return values;
}

}  // namespace refract
