// Two numbers for a loss along a path W(alpha) = alpha A + (1 - alpha) B.
#pragma once
#include <span>

namespace refract {

struct Barrier {
  double end_point_mean = 0;  // (E_A + E_B) / 2
  // max over alpha of E(alpha) - (E_A + E_B) / 2 (Frankle et al., arXiv 1912.05671, section 2).
  double instability = 0, instability_alpha = 0;
  // max over alpha of E(alpha) - [alpha E_A + (1 - alpha) E_B] (Entezari et al., arXiv 2110.06296,
  // equation 1); never below 0, which the end points reach.
  double barrier = 0, barrier_alpha = 0;

  // Both over the mean of the end points; NaN where that is 0.
  double relative_instability() const;
  double relative_barrier() const;
};

// values[i] belongs to alphas[i]; the first alpha is 0 and the last is 1. A value that is not a
// number makes both maxima not a number, an infinite one makes them infinite.
Barrier barrier_of(std::span<const double> alphas, std::span<const double> values);

}  // namespace refract
