#include "model/prefix_tree.h"

#include <gtest/gtest.h>

#include <map>

namespace refract {
namespace prefix_tree_test {

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

// How often a token follows a prefix.
using Counts = std::map<std::pair<Values, int64_t>, int64_t>;

Counts counts_of(const std::vector<int32_t>& stream, size_t context) {
  Counts counts;
  for (size_t i = 0; i + 1 < stream.size(); ++i) {
    const auto begin = stream.begin() + static_cast<int64_t>(i / context * context);
    const auto end = stream.begin() + static_cast<int64_t>(i) + 1;
    ++counts[{Values(begin, end), stream[i + 1]}];
  }
  return counts;
}

void add_counts(const PrefixTree& tree, Counts& counts) {
  const Values tokens = values(tree.tokens), depths = values(tree.depths);
  std::vector<Values> prefixes;
  Values path;
  for (size_t i = 0; i < tokens.size(); ++i) {
    path.resize(static_cast<size_t>(depths[i]));
    path.push_back(tokens[i]);
    prefixes.push_back(path);
  }
  const Values rows = values(tree.rows), targets = values(tree.targets), n = values(tree.counts);
  for (size_t p = 0; p < rows.size(); ++p) {
    ASSERT_GE(rows[p], p > 0 ? rows[p - 1] : 0);
    ASSERT_LT(rows[p], tree.nodes());
    counts[{prefixes[static_cast<size_t>(rows[p])], targets[p]}] += n[p];
  }
}

TEST(PrefixTree, ClosesTreesThatAreFull) {
  std::vector<int32_t> stream;
  for (int32_t i = 0; i < 1001; ++i) stream.push_back((i * i) % 7);
  Counts counted;
  const auto trees = prefix_trees(stream, 8, 10);
  EXPECT_GT(trees.size(), 1U);
  for (const PrefixTree& tree : trees) {
    EXPECT_LT(tree.nodes(), 10 + 8);
    EXPECT_EQ(tree.depths[0].item<int64_t>(), 0);
    add_counts(tree, counted);
  }
  EXPECT_EQ(counted, counts_of(stream, 8));
}

}  // namespace prefix_tree_test
}  // namespace refract
