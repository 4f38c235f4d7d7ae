#include "analysis/matching/linear_assignment.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <numeric>
#include <vector>

#include "core/random.h"
#include "support/symmetries.h"

namespace refract {
namespace linear_assignment_test {

using testing::shuffled;

double total(const std::vector<double>& score, const Permutation& p) {
  double sum = 0;
  for (size_t i = 0; i < p.size(); ++i) sum += score[i * p.size() + static_cast<size_t>(p[i])];
  return sum;
}

TEST(LinearAssignment, IsTheBestOfAllPermutations) {
  for (uint64_t seed = 1; seed <= 60; ++seed) {
    RandomStream random(seed, "scores");
    const auto n = static_cast<int64_t>(1 + seed % 6);
    std::vector<double> score(n * n);
    // Every third case has few distinct values, so many ties.
    for (double& s : score)
      s = seed % 3 == 0 ? static_cast<double>(random.below(3)) : random.uniform() - 0.5;
    const Permutation found = maximal_assignment(score, n);
    Permutation p(n), sorted = found;
    std::iota(p.begin(), p.end(), 0);
    std::sort(sorted.begin(), sorted.end());
    ASSERT_EQ(sorted, p) << "not a permutation, seed " << seed;
    double best = total(score, p);
    while (std::next_permutation(p.begin(), p.end())) best = std::max(best, total(score, p));
    EXPECT_NEAR(total(score, found), best, 1e-12) << "seed " << seed;
  }
}

TEST(LinearAssignment, FindsAHiddenPermutationOfMany) {
  const Permutation hidden = shuffled(300, 4);
  RandomStream random(7, "noise");
  std::vector<double> score(300 * 300);
  for (double& s : score) s = 0.9 * random.uniform();
  for (int64_t i = 0; i < 300; ++i) score[i * 300 + hidden[i]] = 1;
  EXPECT_EQ(maximal_assignment(score, 300), hidden);
}

}  // namespace linear_assignment_test
}  // namespace refract
