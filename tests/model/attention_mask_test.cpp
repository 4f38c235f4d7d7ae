#include "model/attention_mask.h"

#include <ATen/ops/equal.h>
#include <ATen/ops/tensor.h>
#include <gtest/gtest.h>

#include <vector>

namespace refract {
namespace attention_mask_test {

using Rows = std::vector<std::vector<int64_t>>;

// 1 where a query sees a key.
Rows rows_of(const at::Tensor& mask) {
  Rows rows;
  for (int64_t i = 0; i < mask.size(0); ++i) {
    rows.emplace_back();
    for (int64_t j = 0; j < mask.size(1); ++j) rows.back().push_back(mask[i][j].item<bool>());
  }
  return rows;
}

TEST(AttentionMask, AQuerySeesItselfAndWhatStandsBeforeIt) {
  EXPECT_EQ(rows_of(seen_keys(2, 4, 0, at::kCPU)), (Rows{{1, 1, 1, 0}, {1, 1, 1, 1}}));
  EXPECT_EQ(rows_of(seen_keys(3, 3, 0, at::kCPU)), (Rows{{1, 0, 0}, {1, 1, 0}, {1, 1, 1}}));
}

TEST(AttentionMask, AWindowCountsTheQueryItself) {
  EXPECT_EQ(rows_of(seen_keys(4, 4, 2, at::kCPU)),
            (Rows{{1, 0, 0, 0}, {1, 1, 0, 0}, {0, 1, 1, 0}, {0, 0, 1, 1}}));
  EXPECT_EQ(rows_of(seen_keys(2, 4, 3, at::kCPU)), (Rows{{1, 1, 1, 0}, {0, 1, 1, 1}}));
  EXPECT_EQ(rows_of(seen_keys(2, 4, 1, at::kCPU)), (Rows{{0, 0, 1, 0}, {0, 0, 0, 1}}));
  EXPECT_EQ(rows_of(seen_keys(3, 3, 3, at::kCPU)), rows_of(seen_keys(3, 3, 0, at::kCPU)));
}

TEST(AttentionMask, SequencesOfTheirOwnLengths) {
  const at::Tensor lengths = at::tensor({0, 3, 4}, at::kLong);
  const at::Tensor all = seen_keys_at(lengths, 5, 0), windowed = seen_keys_at(lengths, 5, 2);
  EXPECT_EQ(windowed.sizes(), (std::vector<int64_t>{3, 1, 1, 5}));
  EXPECT_EQ(rows_of(all.view({3, 5})), (Rows{{1, 0, 0, 0, 0}, {1, 1, 1, 1, 0}, {1, 1, 1, 1, 1}}));
  EXPECT_EQ(rows_of(windowed.view({3, 5})),
            (Rows{{1, 0, 0, 0, 0}, {0, 0, 1, 1, 0}, {0, 0, 0, 1, 1}}));
}

}  // namespace attention_mask_test
}  // namespace refract
