// The plane through three models (Garipov et al., "Loss surfaces, mode connectivity", 2018, A.1).
#pragma once
#include <array>
#include <span>
#include <vector>

#include "analysis/weights.h"

namespace refract {

// Orthonormal coordinates: A is the origin, B lies on the x axis, C above it.
class Plane {
 public:
  // Fails where the three lie on one line.
  explicit Plane(std::span<const Weights> corners);

  // (x, y) of A, B, C.
  std::array<std::array<double, 2>, 3> corners() const;
  // Coefficients of A, B, C at a point; exactly 1 and 0 at a corner.
  std::vector<double> coefficients(double x, double y) const;

 private:
  double distance_ab_ = 0, c_x_ = 0, c_y_ = 0;
};

// `n` equally spaced values from `low` to `high`, widened on both ends by `margin` of their
// distance.
std::vector<double> axis(double low, double high, int64_t n, double margin);

}  // namespace refract
