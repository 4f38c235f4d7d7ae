// The order of training windows: a permutation in every epoch, found in O(1).
#include "data/windows.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <set>
#include <vector>

#include "core/error.h"

namespace refract {
namespace windows_test {

TEST(PermuteIndex, IsAPermutationOfEverySmallSize) {
  for (uint64_t n = 1; n <= 300; ++n) {
    std::vector<bool> seen(n);
    for (uint64_t i = 0; i < n; ++i) {
      const uint64_t image = permute_index(i, n, 7, n % 5);
      ASSERT_LT(image, n);
      ASSERT_FALSE(seen[image]) << n;
      seen[image] = true;
    }
  }
}

TEST(PermuteIndex, IsAPermutationOfLargeSizes) {
  for (const uint64_t n : {65535ull, 65536ull, 65537ull, 1000003ull}) {
    std::vector<bool> seen(n);
    for (uint64_t i = 0; i < n; ++i) seen[permute_index(i, n, 1, 0)] = true;
    EXPECT_EQ(std::count(seen.begin(), seen.end(), true), static_cast<long>(n));
  }
}

TEST(PermuteIndex, WorksFarBeyondMemory) {
  constexpr uint64_t kMany = 3'000'000'000'000ull;
  std::set<uint64_t> images;
  for (uint64_t i = 0; i < 1000; ++i) {
    const uint64_t image = permute_index(kMany - 1 - i, kMany, 3, 9);
    EXPECT_LT(image, kMany);
    images.insert(image);
  }
  EXPECT_EQ(images.size(), 1000u);
  EXPECT_GT(*images.rbegin() - *images.begin(), kMany / 2);
}

TEST(PermuteIndex, DependsOnSeedAndEpoch) {
  const auto order = [](uint64_t seed, uint64_t epoch) {
    std::vector<uint64_t> images;
    for (uint64_t i = 0; i < 100; ++i) images.push_back(permute_index(i, 100, seed, epoch));
    return images;
  };
  EXPECT_EQ(order(1, 0), order(1, 0));
  EXPECT_NE(order(1, 0), order(1, 1));
  EXPECT_NE(order(1, 0), order(2, 0));
}

// Where the first of n indices goes, over many epochs, is uniform: chi-squared within 5 sigma.
TEST(PermuteIndex, SpreadsUniformly) {
  for (const uint64_t n : {2u, 3u, 5u, 17u, 64u}) {
    constexpr int kEpochs = 20000;
    std::vector<double> counts(n);
    for (uint64_t epoch = 0; epoch < kEpochs; ++epoch) ++counts[permute_index(n / 2, n, 11, epoch)];
    const double expected = kEpochs / static_cast<double>(n);
    double chi = 0;
    for (const double count : counts) chi += (count - expected) * (count - expected) / expected;
    const double freedom = static_cast<double>(n - 1);
    EXPECT_LT(chi, freedom + 5 * std::sqrt(2 * freedom)) << n;
  }
}

TEST(PermuteIndex, RefusesAnIndexOutside) { EXPECT_THROW(permute_index(5, 5, 1, 0), Error); }

TEST(WindowOrder, VisitsEveryWindowOncePerEpoch) {
  const WindowOrder order(1000, 8, 5);
  const int64_t n = order.windows_per_epoch();
  EXPECT_GE(n, 1000 / 8 - 2);
  std::vector<int64_t> first_epoch;
  for (int64_t epoch = 0; epoch < 50; ++epoch) {
    std::vector<int64_t> starts;
    for (int64_t i = 0; i < n; ++i) starts.push_back(order.start(epoch * n + i));
    if (epoch == 0) first_epoch = starts;
    EXPECT_EQ(epoch == 0, starts == first_epoch);
    std::sort(starts.begin(), starts.end());
    ASSERT_GE(starts.front(), 0);
    ASSERT_LE(starts.back() + 8 + 1, 1000);
    for (size_t i = 1; i < starts.size(); ++i) ASSERT_EQ(starts[i] - starts[i - 1], 8);
  }
}

TEST(WindowOrder, ReachesEveryTokenAtEveryPlace) {
  constexpr int64_t kTokens = 45, kContext = 4;
  const WindowOrder order(kTokens, kContext, 2);
  std::set<int64_t> starts;
  for (int64_t g = 0; g < 400 * order.windows_per_epoch(); ++g) starts.insert(order.start(g));
  EXPECT_EQ(static_cast<int64_t>(starts.size()), kTokens - kContext);  // all there can be
}

// Rank r of W takes its slice of every global batch: together they read what one process would.
TEST(WindowOrder, RanksShareEachBatch) {
  const WindowOrder order(5000, 16, 3);
  constexpr int64_t kBatch = 12;
  for (const int64_t world : {1, 2, 3, 4}) {
    const int64_t local = kBatch / world;
    for (int64_t step = 0; step < 40; ++step) {
      std::vector<int64_t> together, alone;
      for (int64_t rank = 0; rank < world; ++rank) {
        for (int64_t i = 0; i < local; ++i) {
          together.push_back(order.start(step * kBatch + rank * local + i));
        }
      }
      for (int64_t i = 0; i < kBatch; ++i) alone.push_back(order.start(step * kBatch + i));
      EXPECT_EQ(together, alone);
    }
  }
}

TEST(WindowOrder, TakesTheShortestStreamAndRefusesLess) {
  const WindowOrder order(9, 8, 1);
  EXPECT_EQ(order.windows_per_epoch(), 1);
  EXPECT_EQ(order.start(0), 0);
  EXPECT_EQ(order.start(12345), 0);
  EXPECT_THROW(WindowOrder(8, 8, 1), Error);
  EXPECT_THROW(WindowOrder(8, 0, 1), Error);
  EXPECT_THROW(order.start(-1), Error);
}

TEST(RandomWindows, AreAFunctionOfTheSeedAndThePlace) {
  const auto starts = [](uint64_t seed) {
    const WindowOrder order(1'000'000, 64, seed, Sampling::kRandom);
    std::vector<int64_t> drawn;
    for (int64_t g = 0; g < 200; ++g) drawn.push_back(order.start(g));
    return drawn;
  };
  EXPECT_EQ(starts(1), starts(1));
  EXPECT_NE(starts(1), starts(2));
  // Far into a run, a window is found as soon as at its beginning.
  const WindowOrder order(1'000'000, 64, 1, Sampling::kRandom);
  EXPECT_NE(order.start(int64_t{1} << 60), order.start((int64_t{1} << 60) + 1));
  EXPECT_THROW(order.start(-1), Error);
}

// Every start is as likely: chi-squared within 5 sigma. With replacement: of n draws from n places
// some 1/e of the places are never met, which a permutation would all visit.
TEST(RandomWindows, AreUniformAndWithReplacement) {
  constexpr int64_t kTokens = 108, kContext = 8, kStarts = 100, kDraws = 100'000;
  const WindowOrder order(kTokens, kContext, 4, Sampling::kRandom);
  std::vector<double> counts(kStarts);
  std::set<int64_t> first;
  for (int64_t g = 0; g < kDraws; ++g) {
    const int64_t start = order.start(g);
    ASSERT_GE(start, 0);
    ASSERT_LE(start + kContext + 1, kTokens);
    ++counts[static_cast<size_t>(start)];
    if (g < kStarts) first.insert(start);
  }
  const double expected = static_cast<double>(kDraws) / kStarts;
  double chi = 0;
  for (const double count : counts) chi += (count - expected) * (count - expected) / expected;
  EXPECT_LT(chi, 99 + 5 * std::sqrt(2.0 * 99));
  EXPECT_GT(chi, 99 - 5 * std::sqrt(2.0 * 99));
  EXPECT_NEAR(static_cast<double>(first.size()), kStarts * (1 - std::exp(-1.0)), 16);  // 5 sigma
}

TEST(RandomWindows, TakeTheShortestStream) {
  const WindowOrder order(9, 8, 1, Sampling::kRandom);
  for (int64_t g = 0; g < 10; ++g) EXPECT_EQ(order.start(g), 0);
  EXPECT_THROW(WindowOrder(8, 8, 1, Sampling::kRandom), Error);
}

}  // namespace windows_test
}  // namespace refract
