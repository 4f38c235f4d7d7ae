#include "analysis/barrier.h"

#include <cmath>
#include <limits>
#include <stdexcept>

namespace refract {
namespace {

double over(double value, double mean) {
  return mean == 0 ? std::numeric_limits<double>::quiet_NaN() : value / mean;
}

void raise(double value, double alpha, double& top, double& top_alpha) {
  if (std::isnan(top) || value <= top) return;  // what is not a number stays
  top = value;
  top_alpha = alpha;
}

}  // namespace

double Barrier::relative_instability() const { return over(instability, end_point_mean); }
double Barrier::relative_barrier() const { return over(barrier, end_point_mean); }

Barrier barrier_of(std::span<const double> alphas, std::span<const double> values) {
  if (alphas.size() != values.size() || alphas.size() < 2 || alphas.front() != 0 ||
      alphas.back() != 1) {
    throw std::logic_error("a path starts at alpha = 0 and ends at alpha = 1");
  }
  const double at_b = values.front(), at_a = values.back();
  Barrier result;
  result.end_point_mean = (at_a + at_b) / 2;
  result.instability = result.barrier = -std::numeric_limits<double>::infinity();
  for (size_t i = 0; i < alphas.size(); ++i) {
    const double alpha = alphas[i], chord = alpha * at_a + (1 - alpha) * at_b;
    // At the ends the chord is the value, whatever the rounding of the line above says.
    const bool end = i == 0 || i + 1 == alphas.size();
    raise(values[i] - result.end_point_mean, alpha, result.instability, result.instability_alpha);
    raise(end && std::isfinite(values[i]) ? 0 : values[i] - chord, alpha, result.barrier,
          result.barrier_alpha);
  }
  return result;
}

}  // namespace refract
