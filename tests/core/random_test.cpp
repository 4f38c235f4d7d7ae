#include "core/random.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstdint>
#include <set>

namespace refract {
namespace random_test {

// The known-answer vectors of the authors' Random123 library for philox4x32-10.
TEST(Philox, MatchesKnownAnswers) {
  const PhiloxBlock zero = philox({0, 0}, 0, 0);
  EXPECT_EQ(zero.word[0], 0x6627e8d5u);
  EXPECT_EQ(zero.word[1], 0xe169c58du);
  EXPECT_EQ(zero.word[2], 0xbc57ac4cu);
  EXPECT_EQ(zero.word[3], 0x9b00dbd8u);
  const PhiloxBlock ones = philox({0xffffffffu, 0xffffffffu}, ~0ull, ~0ull);
  EXPECT_EQ(ones.word[0], 0x408f276du);
  EXPECT_EQ(ones.word[1], 0x41c83b0eu);
  EXPECT_EQ(ones.word[2], 0xa20bc7c6u);
  EXPECT_EQ(ones.word[3], 0x6d5451fdu);
}

// ... and for philox4x32-7.
TEST(Philox, MatchesKnownAnswersOfNoise) {
  const PhiloxBlock zero = noise_block({0, 0}, 0, 0);
  EXPECT_EQ(zero.word[0], 0x5f6fb709u);
  EXPECT_EQ(zero.word[1], 0x0d893f64u);
  EXPECT_EQ(zero.word[2], 0x4f121f81u);
  EXPECT_EQ(zero.word[3], 0x4f730a48u);
  const PhiloxBlock ones = noise_block({0xffffffffu, 0xffffffffu}, ~0ull, ~0ull);
  EXPECT_EQ(ones.word[0], 0x5207ddc2u);
  EXPECT_EQ(ones.word[1], 0x45165e59u);
  EXPECT_EQ(ones.word[2], 0x4d8ee751u);
  EXPECT_EQ(ones.word[3], 0x8c52f662u);
}

TEST(RandomStream, IsUniformAndKeyed) {
  RandomStream a(1, "x"), b(1, "x"), c(2, "x"), d(1, "y");
  double sum = 0;
  for (int i = 0; i < 10000; ++i) {
    const double u = a.uniform();
    EXPECT_EQ(u, b.uniform());
    EXPECT_NE(u, c.uniform());
    EXPECT_NE(u, d.uniform());
    sum += u;
  }
  EXPECT_NEAR(sum / 10000, 0.5, 5 * std::sqrt(1.0 / 12 / 10000));  // five standard errors
  std::set<uint64_t> seen;
  for (int i = 0; i < 1000; ++i) seen.insert(a.below(7));
  EXPECT_EQ(seen.size(), 7u);
  EXPECT_EQ(*seen.rbegin(), 6u);
}

}  // namespace random_test
}  // namespace refract
