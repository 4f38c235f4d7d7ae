// The bounds that ops/common/math.h states, over the range of each function.
#include "ops/common/math.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <limits>

namespace refract {
namespace common_math_test {

// The distance from the exact value in units in the last place of the float nearest to it.
double ulps(float actual, double exact) {
  const float nearest = static_cast<float>(exact);
  const float next = std::nextafter(std::fabs(nearest), std::numeric_limits<float>::infinity());
  return std::fabs(actual - exact) / (static_cast<double>(next) - std::fabs(nearest));
}

template <class F, class G>
double worst(F actual, G exact, float low, float high) {
  double bound = 0;
  constexpr int kSteps = 2'000'000;
  for (int i = 0; i <= kSteps; ++i) {
    const float x = low + (high - low) * (static_cast<float>(i) / kSteps);
    bound = std::max(bound, ulps(actual(x), exact(static_cast<double>(x))));
  }
  return bound;
}

#define REFRACT_COMPARE(function, low, high)                                                       \
  worst([](float x) { return simd::function(x); }, [](double x) { return std::function(x); }, low, \
        high)

TEST(Math, ExpIsWithinTwoUlp) { EXPECT_LE(REFRACT_COMPARE(exp, -87.3f, 88.7f), 2.0); }
TEST(Math, TanhIsWithinThreeUlp) {
  EXPECT_LE(REFRACT_COMPARE(tanh, -20.0f, 20.0f), 3.0);
  EXPECT_LE(REFRACT_COMPARE(tanh, -1.0f, 1.0f), 3.0);
}
TEST(Math, ErfIsWithinThreeUlp) {
  EXPECT_LE(REFRACT_COMPARE(erf, -6.0f, 6.0f), 3.0);
  EXPECT_LE(REFRACT_COMPARE(erf, -1.1f, 1.1f), 3.0);
}
TEST(Math, LogIsWithinTwoUlp) {
  EXPECT_LE(REFRACT_COMPARE(log, 1e-30f, 1e-3f), 2.0);
  EXPECT_LE(REFRACT_COMPARE(log, 0.5f, 2.0f), 2.0);
  EXPECT_LE(REFRACT_COMPARE(log, 1.0f, 1e6f), 2.0);
}

TEST(Math, EdgesAreExact) {
  const float inf = std::numeric_limits<float>::infinity();
  const float nan = std::numeric_limits<float>::quiet_NaN();
  EXPECT_EQ(simd::exp(0.0f), 1.0f);
  EXPECT_EQ(simd::exp(-inf), 0.0f);
  EXPECT_EQ(simd::exp(-1000.0f), 0.0f);
  EXPECT_EQ(simd::exp(inf), inf);
  EXPECT_EQ(simd::exp(89.0f), inf);
  EXPECT_TRUE(std::isnan(simd::exp(nan)));
  EXPECT_EQ(simd::tanh(inf), 1.0f);
  EXPECT_EQ(simd::tanh(-inf), -1.0f);
  EXPECT_TRUE(std::isnan(simd::tanh(nan)));
  EXPECT_EQ(simd::erf(inf), 1.0f);
  EXPECT_EQ(simd::erf(-inf), -1.0f);
  EXPECT_TRUE(std::isnan(simd::erf(nan)));
  EXPECT_EQ(simd::log(1.0f), 0.0f);
}

TEST(Math, BFloat16RoundsAsTorchDoes) {
  for (uint32_t i = 0; i < 0x10000u; ++i) {
    for (uint32_t low : {0u, 1u, 0x7fffu, 0x8000u, 0x8001u, 0xffffu}) {
      const float x = std::bit_cast<float>((i << 16) | low);
      const at::BFloat16 expected(x), actual = simd::narrow<at::BFloat16>(x);
      if (std::isnan(x)) {
        EXPECT_TRUE(std::isnan(static_cast<float>(actual)));
      } else {
        EXPECT_EQ(actual.x, expected.x) << x;
      }
      EXPECT_EQ(std::bit_cast<uint32_t>(simd::widen(expected)),
                std::bit_cast<uint32_t>(static_cast<float>(expected)));
    }
  }
}

}  // namespace common_math_test
}  // namespace refract
