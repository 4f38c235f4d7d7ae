#include "analysis/prefix_tree.h"

#include <gtest/gtest.h>

namespace refract {
namespace {

std::vector<int64_t> values(const at::Tensor& t) {
  const int64_t* data = t.const_data_ptr<int64_t>();
  return {data, data + t.numel()};
}

using Values = std::vector<int64_t>;

TEST(PrefixTree, HoldsEachPrefixOnceAndCountsWhatFollows) {
  // Windows of three and their last targets: 123 1, 124 1, 123 5; then the shorter 5 1 2.
  const std::vector<int32_t> stream = {1, 2, 3, 1, 2, 4, 1, 2, 3, 5, 1, 2};
  const auto trees = prefix_trees(stream, 3, 100);
  ASSERT_EQ(trees.size(), 1U);
  const PrefixTree& tree = trees[0];
  EXPECT_EQ(values(tree.tokens), (Values{1, 2, 3, 4, 5, 1}));
  EXPECT_EQ(values(tree.depths), (Values{0, 1, 2, 2, 0, 1}));
  EXPECT_EQ(values(tree.rows), (Values{0, 1, 1, 2, 2, 3, 4, 5}));
  EXPECT_EQ(values(tree.targets), (Values{2, 3, 4, 1, 5, 1, 1, 2}));
  EXPECT_EQ(values(tree.counts), (Values{3, 2, 1, 1, 1, 1, 1, 1}));
  EXPECT_EQ(tree.levels, 3);
  EXPECT_DOUBLE_EQ(distinct_share(trees), 6.0 / 11);
}

TEST(PrefixTree, AShorterWindowMayEndInsideAnother) {
  // 7 8 9 7, 7 8: the last window's target is a token that the first goes on from.
  const auto trees = prefix_trees(std::vector<int32_t>{7, 8, 9, 7, 8}, 3, 100);
  ASSERT_EQ(trees.size(), 1U);
  EXPECT_EQ(values(trees[0].tokens), (Values{7, 8, 9}));
  EXPECT_EQ(values(trees[0].targets), (Values{8, 9, 7}));
  EXPECT_EQ(values(trees[0].counts), (Values{2, 1, 1}));
}

TEST(PrefixTree, ClosesTreesThatAreFull) {
  std::vector<int32_t> stream;
  for (int32_t i = 0; i < 1001; ++i) stream.push_back((i * i) % 7);
  int64_t counted = 0;
  const auto trees = prefix_trees(stream, 8, 10);
  EXPECT_GT(trees.size(), 1U);
  for (const PrefixTree& tree : trees) {
    EXPECT_LT(tree.nodes(), 10 + 8);
    EXPECT_EQ(tree.depths[0].item<int64_t>(), 0);
    counted += tree.counts.sum().item<int64_t>();
  }
  EXPECT_EQ(counted, 1000);
}

}  // namespace
}  // namespace refract
