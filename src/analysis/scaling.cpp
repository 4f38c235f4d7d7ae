#include "analysis/scaling.h"

#include <Eigen/Dense>
#include <algorithm>
#include <cmath>
#include <limits>
#include <numbers>
#include <optional>
#include <unsupported/Eigen/NonLinearOptimization>

#include "core/error.h"

namespace refract {
namespace {

using Eigen::MatrixXd;
using Eigen::VectorXd;

// Residuals log(E + A u^-alpha) - log L with u = x / x0, in the parameters (log A, alpha[, E]).
struct Residuals {
  VectorXd log_u, log_loss;
  bool with_offset = false;

  int inputs() const { return with_offset ? 3 : 2; }
  int values() const { return static_cast<int>(log_u.size()); }

  // The law at point i and its reducible part. A step of the optimizer may ask for an offset that
  // makes a loss negative; it is told of a tiny loss, which is a bad one.
  double law(const VectorXd& p, Eigen::Index i, double& reducible) const {
    reducible = std::exp(p[0] - p[1] * log_u[i]);
    return std::max(reducible + (with_offset ? p[2] : 0), 1e-12);
  }
  int operator()(const VectorXd& p, VectorXd& r) const {
    double reducible = 0;
    for (Eigen::Index i = 0; i < r.size(); ++i) r[i] = std::log(law(p, i, reducible)) - log_loss[i];
    return 0;
  }
  int df(const VectorXd& p, MatrixXd& jacobian) const {
    for (Eigen::Index i = 0; i < log_u.size(); ++i) {
      double reducible = 0;
      const double value = law(p, i, reducible);
      jacobian(i, 0) = reducible / value;
      jacobian(i, 1) = -reducible * log_u[i] / value;
      if (with_offset) jacobian(i, 2) = 1 / value;
    }
    return 0;
  }
};

struct Solution {
  VectorXd parameters;
  double sum_of_squares = std::numeric_limits<double>::infinity();
};

Solution minimize(Residuals residuals, VectorXd start) {
  Eigen::LevenbergMarquardt<Residuals> optimizer(residuals);
  optimizer.parameters.ftol = optimizer.parameters.xtol = 1e-15;
  optimizer.parameters.maxfev = 2000;
  Solution solution;
  solution.parameters = std::move(start);
  optimizer.minimize(solution.parameters);
  VectorXd r(residuals.values());
  residuals(solution.parameters, r);
  if (r.allFinite()) solution.sum_of_squares = r.squaredNorm();
  return solution;
}

// A straight line through (log u, log(L - offset)).
VectorXd straight_line(const Residuals& residuals, double offset) {
  const VectorXd y = (residuals.log_loss.array().exp() - offset).max(1e-12).log();
  const double mean_x = residuals.log_u.mean(), mean_y = y.mean();
  const VectorXd dx = residuals.log_u.array() - mean_x;
  const double slope = dx.dot((y.array() - mean_y).matrix()) / dx.squaredNorm();
  VectorXd start(residuals.inputs());
  start[0] = mean_y - slope * mean_x;
  start[1] = -slope;
  if (residuals.with_offset) start[2] = offset;
  return start;
}

// The problem has a long flat valley between offset and slope, so it is started along it.
Solution solve(const Residuals& residuals) {
  if (!residuals.with_offset) return minimize(residuals, straight_line(residuals, 0));
  const double lowest = std::exp(residuals.log_loss.minCoeff());
  Solution best;
  for (const double share : {0.0, 0.3, 0.6, 0.8, 0.9, 0.97, 0.995}) {
    Solution solution = minimize(residuals, straight_line(residuals, share * lowest));
    if (solution.sum_of_squares < best.sum_of_squares) best = std::move(solution);
  }
  return best;
}

int64_t count_different(std::span<const ScalingPoint> points) {
  std::vector<double> x;
  for (const ScalingPoint& p : points) x.push_back(p.x);
  std::sort(x.begin(), x.end());
  const auto same = [](double a, double b) { return std::abs(a - b) <= 1e-9 * std::abs(b); };
  return std::unique(x.begin(), x.end(), same) - x.begin();
}

// The least number of points for a fit with intervals.
int64_t least_points(bool with_offset) { return with_offset ? 4 : 3; }

void check(std::span<const ScalingPoint> points, bool with_offset) {
  for (const ScalingPoint& p : points) {
    if (p.x > 0 && p.loss > 0 && std::isfinite(p.x) && std::isfinite(p.loss)) continue;
    fail("a power law needs positive numbers; a run has x = {} and a loss of {}", p.x, p.loss);
  }
  const int64_t different = count_different(points), least = least_points(with_offset);
  if (different < least) {
    fail(
        "a power law {} has {} parameters; it takes {} runs of different sizes to fit it with "
        "confidence intervals, and there are {}",
        with_offset ? "with an offset" : "without an offset", with_offset ? 3 : 2, least,
        different);
  }
}

Estimate estimate(double value, double error, double t) {
  return {value, value - t * error, value + t * error, error};
}

// P(|T| < t): Abramowitz and Stegun 26.7.3 and 26.7.4.
double student_within(double t, int64_t freedom) {
  const double theta = std::atan(t / std::sqrt(static_cast<double>(freedom)));
  const double cosine = std::cos(theta), sine = std::sin(theta);
  const bool odd = freedom % 2 == 1;
  double term = odd ? cosine : 1, sum = freedom == 1 ? 0 : term;
  for (int64_t k = odd ? 3 : 2; k <= freedom - 2; k += 2) {
    term *= cosine * cosine * static_cast<double>(k - 1) / static_cast<double>(k);
    sum += term;
  }
  return odd ? 2 / std::numbers::pi * (theta + sine * sum) : sine * sum;
}

}  // namespace

double student_t(double confidence, int64_t freedom) {
  double low = 0, high = 1;
  while (student_within(high, freedom) < confidence) high *= 2;
  for (int i = 0; i < 200 && high - low > 1e-12 * high; ++i) {
    const double middle = (low + high) / 2;
    (student_within(middle, freedom) < confidence ? low : high) = middle;
  }
  return (low + high) / 2;
}

double PowerLaw::operator()(double x) const {
  return e.value + a.value * std::pow(x / x0, -alpha.value);
}

// By the derivatives of log L, so that the interval is positive.
Estimate PowerLaw::at(double x) const {
  const double loss = (*this)(x), log_x = std::log(x / x0);
  const double reducible = loss - e.value;
  const std::array<double, 3> slope = {reducible / loss, -log_x * reducible / loss, unit / loss};
  double variance = 0;
  for (size_t i = 0; i < slope.size(); ++i) {
    for (size_t j = 0; j < slope.size(); ++j)
      variance += slope.at(i) * slope.at(j) * covariance.at(3 * i + j);
  }
  const double error = std::sqrt(std::max(0.0, variance)), spread = std::exp(t * error);
  return {loss, loss / spread, loss * spread, loss * error};
}

PowerLaw fit_power_law(std::span<const ScalingPoint> points, bool with_offset, double confidence) {
  check(points, with_offset);
  const auto n = static_cast<Eigen::Index>(points.size());
  Residuals residuals{VectorXd(n), VectorXd(n), with_offset};
  for (Eigen::Index i = 0; i < n; ++i) {
    residuals.log_u[i] = std::log(points[static_cast<size_t>(i)].x);
    residuals.log_loss[i] = std::log(points[static_cast<size_t>(i)].loss);
  }
  PowerLaw law;
  // In units of their geometric means, so that no number is far from 1.
  law.x0 = std::exp(residuals.log_u.mean());
  const double unit = std::exp(residuals.log_loss.mean());
  residuals.log_u.array() -= residuals.log_u.mean();
  residuals.log_loss.array() -= residuals.log_loss.mean();
  Solution solution = solve(residuals);
  law.with_offset = with_offset;
  if (with_offset && solution.parameters[2] < 0) {  // a loss has no negative floor
    law.at_bound = true;
    residuals.with_offset = false;
    solution = solve(residuals);
  }
  if (!std::isfinite(solution.sum_of_squares)) fail("the power law could not be fitted");
  MatrixXd jacobian(n, residuals.inputs());
  residuals.df(solution.parameters, jacobian);
  law.points = n;
  law.freedom = n - residuals.inputs();
  const double variance = solution.sum_of_squares / static_cast<double>(law.freedom);
  const MatrixXd covariance =
      variance *
      (jacobian.transpose() * jacobian).completeOrthogonalDecomposition().pseudoInverse();
  const double t = student_t(confidence, law.freedom);
  law.t = t;
  law.unit = unit;
  for (Eigen::Index i = 0; i < covariance.rows(); ++i) {
    for (Eigen::Index j = 0; j < covariance.cols(); ++j)
      law.covariance.at(static_cast<size_t>(3 * i + j)) = covariance(i, j);
  }
  const auto error = [&](int i) { return std::sqrt(std::max(0.0, covariance(i, i))); };
  const double a = unit * std::exp(solution.parameters[0]), spread = std::exp(t * error(0));
  law.a = {a, a / spread, a * spread, a * error(0)};
  law.alpha = estimate(solution.parameters[1], error(1), t);
  if (residuals.with_offset) {
    law.e = estimate(unit * solution.parameters[2], unit * error(2), t);
    law.e.low = std::max(0.0, law.e.low);
  }
  law.residual = std::sqrt(solution.sum_of_squares / static_cast<double>(n));
  return law;
}

Estimate difference_of_slopes(const PowerLaw& a, const PowerLaw& b, double confidence) {
  const double va = a.alpha.error * a.alpha.error, vb = b.alpha.error * b.alpha.error;
  const double sum = va + vb;
  int64_t freedom = std::min(a.freedom, b.freedom);
  if (sum > 0) {
    const double welch =
        sum * sum /
        (va * va / static_cast<double>(a.freedom) + vb * vb / static_cast<double>(b.freedom));
    freedom = std::max(freedom, static_cast<int64_t>(welch));
  }
  return estimate(a.alpha.value - b.alpha.value, std::sqrt(sum), student_t(confidence, freedom));
}

}  // namespace refract
