// How a loss falls with what is spent on it: power laws fitted to finished runs.
//     L(x) = E + A (x / x0)^-alpha     (Hoffmann et al. 2022, one variable at a time), or with E =
//     0
// x0 is the geometric mean of the x that were measured, so that A is the reducible loss in their
// middle and does not depend on alpha; in units of 1 it is A x0^alpha.
#pragma once
#include <array>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

namespace refract {

struct ScalingPoint {
  double x = 0, loss = 0;  // both above 0
};

// A value with its confidence interval.
struct Estimate {
  double value = 0, low = 0, high = 0;
  double error = 0;  // standard error
};

struct PowerLaw {
  Estimate e, a, alpha;  // without an offset e is 0
  double x0 = 1;
  double residual = 0;              // root mean square of the errors of log L
  int64_t points = 0, freedom = 0;  // degrees of freedom
  bool with_offset = false;
  bool at_bound = false;  // the best E would have been negative, so it is held at 0

  double operator()(double x) const;
  // The loss at x with the interval that the fit's covariance gives it: of the law there, not of a
  // single run. It widens away from the measured x.
  Estimate at(double x) const;

  // Of (log of A over the unit, alpha, E over the unit), row by row; without an offset its last row
  // and column are 0. The unit is the geometric mean of the losses.
  std::array<double, 9> covariance = {};
  double unit = 1, t = 0;  // Student's t of the intervals
};

// Least squares on log L by Levenberg and Marquardt's method (Eigen), from several starting points.
// Intervals come from the covariance at the optimum and Student's t, of `confidence`. Throws Error
// where there are too few different x: two parameters need three of them, three need four.
PowerLaw fit_power_law(std::span<const ScalingPoint> points, bool with_offset,
                       double confidence = 0.95);

// How much steeper `a` is than `b`: the difference of their alphas with its interval (Welch's
// degrees of freedom).
Estimate difference_of_slopes(const PowerLaw& a, const PowerLaw& b, double confidence = 0.95);

// t with P(|T| < t) = confidence, of Student's distribution.
double student_t(double confidence, int64_t freedom);

}  // namespace refract
