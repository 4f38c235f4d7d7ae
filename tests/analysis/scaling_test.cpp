#include "analysis/scaling.h"

#include <gtest/gtest.h>

#include <cmath>
#include <numbers>
#include <vector>

#include "core/random.h"
#include "support/errors.h"

namespace refract {
namespace scaling_test {

double normal(RandomStream& random) {  // Box and Muller
  return std::sqrt(-2 * std::log(1 - random.uniform())) *
         std::cos(2 * std::numbers::pi * random.uniform());
}

// Sizes over three decades.
std::vector<ScalingPoint> synthetic(double e, double a, double alpha, int count, double noise = 0,
                                    uint64_t seed = 0) {
  RandomStream random(seed, "scaling");
  std::vector<ScalingPoint> points;
  for (int i = 0; i < count; ++i) {
    const double x = 1e17 * std::pow(10, 3.0 * i / (count - 1));
    points.push_back({x, (e + a * std::pow(x, -alpha)) * std::exp(noise * normal(random))});
  }
  return points;
}

TEST(Scaling, RecoversPlainLawsExactly) {
  for (const double alpha : {0.02, 0.05, 0.3, 1.0}) {
    const PowerLaw law = fit_power_law(synthetic(0, 50, alpha, 3), false);
    EXPECT_NEAR(law.alpha.value, alpha, 1e-9);
    EXPECT_NEAR(law.a.value * std::pow(law.x0, alpha), 50, 1e-6);
    EXPECT_EQ(law.e.value, 0);
    EXPECT_NEAR(law(3e18), 50 * std::pow(3e18, -alpha), 1e-9);
    EXPECT_LT(law.alpha.high - law.alpha.low, 1e-6);
    EXPECT_EQ(law.freedom, 1);
  }
}

TEST(Scaling, RecoversLawsWithAnOffsetExactly) {
  for (const double alpha : {0.05, 0.15, 0.34}) {
    for (const double e : {0.5, 1.69, 3.0}) {
      const double a = 2 * std::pow(1e18, alpha);  // a reducible loss of about 2
      const PowerLaw law = fit_power_law(synthetic(e, a, alpha, 6), true);
      EXPECT_NEAR(law.alpha.value, alpha, 1e-5) << e;
      EXPECT_NEAR(law.e.value, e, 2e-4) << alpha;
      EXPECT_LT(law.residual, 1e-8);
      EXPECT_FALSE(law.at_bound);
    }
  }
}

TEST(Scaling, AnOffsetIsNotNegative) {
  std::vector<ScalingPoint> points = synthetic(0, 50, 0.05, 8);
  for (ScalingPoint& p : points) p.loss -= 0.5;  // falls faster than any power law
  const PowerLaw law = fit_power_law(points, true);
  EXPECT_TRUE(law.at_bound);
  EXPECT_EQ(law.e.value, 0);
}

// Of 400 noisy data sets the 95% interval holds the true value in about 380; fewer than 367 or more
// than 393 happen once in 400 times (three standard deviations of 4.36), the seeds being fixed.
TEST(Scaling, IntervalsCoverAsOftenAsTheySay) {
  constexpr int kTrials = 400;
  int plain = 0, slope = 0, offset = 0;
  for (int i = 0; i < kTrials; ++i) {
    const auto seed = static_cast<uint64_t>(i);
    const PowerLaw law = fit_power_law(synthetic(0, 50, 0.06, 5, 0.01, seed), false);
    plain += law.alpha.low <= 0.06 && 0.06 <= law.alpha.high;
    const double a = 3 * std::pow(1e18, 0.2);
    const PowerLaw full = fit_power_law(synthetic(1.5, a, 0.2, 10, 0.003, seed), true);
    slope += full.alpha.low <= 0.2 && 0.2 <= full.alpha.high;
    offset += full.e.low <= 1.5 && 1.5 <= full.e.high;
  }
  for (const int covered : {plain, slope, offset}) {
    EXPECT_GE(covered, 367);
    EXPECT_LE(covered, 393);
  }
}

TEST(Scaling, ComparesSlopes) {
  const PowerLaw steep = fit_power_law(synthetic(0, 50, 0.08, 6, 0.003, 1), false);
  const PowerLaw flat = fit_power_law(synthetic(0, 50, 0.05, 6, 0.003, 2), false);
  const Estimate d = difference_of_slopes(steep, flat);
  EXPECT_NEAR(d.value, 0.03, 0.005);
  EXPECT_GT(d.low, 0);
  EXPECT_GT(d.high, d.value);
  const Estimate same =
      difference_of_slopes(steep, fit_power_law(synthetic(0, 40, 0.08, 6, 0.003, 3), false));
  EXPECT_LT(same.low, 0);
  EXPECT_GT(same.high, 0);
}

// Tables of Student's distribution.
TEST(Scaling, StudentsQuantiles) {
  EXPECT_NEAR(student_t(0.95, 1), 12.7062, 1e-3);
  EXPECT_NEAR(student_t(0.95, 2), 4.30265, 1e-4);
  EXPECT_NEAR(student_t(0.95, 3), 3.18245, 1e-4);
  EXPECT_NEAR(student_t(0.95, 4), 2.77645, 1e-4);
  EXPECT_NEAR(student_t(0.99, 9), 3.24984, 1e-4);
  EXPECT_NEAR(student_t(0.95, 1000), 1.96234, 1e-4);
}

std::string error_of(const std::vector<ScalingPoint>& points, bool with_offset) {
  return testing::error_of([&] { fit_power_law(points, with_offset); });
}

TEST(Scaling, TooFewRunsAreAnErrorThatSaysHowMany) {
  EXPECT_NE(error_of(synthetic(0, 50, 0.1, 2), false).find("takes 3 runs"), std::string::npos);
  EXPECT_NE(error_of(synthetic(0, 50, 0.1, 3), true).find("takes 4 runs"), std::string::npos);
  std::vector<ScalingPoint> same(5, {1e18, 3.0});
  same.push_back({2e18, 2.9});
  EXPECT_NE(error_of(same, false).find("there are 2"), std::string::npos);
  EXPECT_NE(error_of({{1e18, 3}, {2e18, NAN}, {3e18, 2}}, false).find("positive"),
            std::string::npos);
}

// The band of a plain law is that of a straight line on log axes: narrowest in the middle, where it
// is the interval of A, and as wide as A's and alpha's errors make it elsewhere.
TEST(Scaling, TheBandIsThatOfTheFit) {
  const PowerLaw law = fit_power_law(synthetic(0, 50, 0.05, 6, 0.01, 3), false);
  const Estimate middle = law.at(law.x0);
  EXPECT_NEAR(middle.value, law(law.x0), 1e-12);
  EXPECT_NEAR(middle.low, law.a.low, 1e-9);
  EXPECT_NEAR(middle.high, law.a.high, 1e-9);
  const double far = law.x0 * 1e3, log_x = std::log(1e3);
  const double error_a = std::log(law.a.high / law.a.value) / law.t;
  const double expected =
      std::sqrt(error_a * error_a + log_x * log_x * law.alpha.error * law.alpha.error);
  EXPECT_NEAR(std::log(law.at(far).high / law(far)) / law.t, expected, 1e-6 * expected);
  EXPECT_GT(law.at(far).high / law.at(far).low, middle.high / middle.low);
}

// At a point of the data it covers the truth as often as it claims.
TEST(Scaling, TheBandCoversTheLaw) {
  constexpr int kSets = 400;
  int covered = 0;
  for (int set = 0; set < kSets; ++set) {
    const PowerLaw law = fit_power_law(
        synthetic(1.5, 2 * std::pow(1e18, 0.2), 0.2, 12, 0.002, 100 + static_cast<uint64_t>(set)),
        true);
    const double x = 1e20, truth = 1.5 + 2 * std::pow(1e18, 0.2) * std::pow(x, -0.2);
    const Estimate loss = law.at(x);
    covered += loss.low <= truth && truth <= loss.high ? 1 : 0;
  }
  EXPECT_GT(covered, 0.91 * kSets);
  EXPECT_LT(covered, 0.99 * kSets);
}

}  // namespace scaling_test
}  // namespace refract
