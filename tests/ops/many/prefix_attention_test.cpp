// Samples for tests/parity/test_every_op.py:
// opcheck: prefix_attention(plain(2, 5, 64), torch.tensor([0, 1, 2, 1, 0]), 3, 4, 2, 0.4)
#include "ops/many/prefix_attention.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/randint.h>

#include "ops/dense/attention/attention.h"
#include "support/compare.h"
#include "support/cuda_guard.h"

namespace refract {
namespace many_prefix_attention_test {

using testing::identical;
using testing::name_of;
using testing::normal;

constexpr double kScale = 0.37;

struct Case {
  int64_t models, nodes, levels, heads, kv_heads, head_dim;
};
// Levels and widths below, at and beside whole vectors and tiles of every instruction set.
const Case kCases[] = {{1, 300, 8, 4, 4, 16}, {2, 1, 1, 1, 1, 8},     {3, 90, 9, 6, 2, 5},
                       {1, 90, 17, 4, 1, 32}, {2, 200, 40, 3, 3, 80}, {2, 0, 4, 2, 2, 16}};

at::Tensor joint(const Case& c, at::ScalarType dtype) {
  return normal({c.models, c.nodes, (c.heads + 2 * c.kv_heads) * c.head_dim}, dtype);
}

// A preorder that mostly goes down, and back up to anywhere.
at::Tensor random_depths(const Case& c) {
  const at::Tensor draws = at::randint(1 << 20, {2, c.nodes}, at::kLong);
  at::Tensor depths = at::empty({c.nodes}, at::kLong);
  int64_t before = -1;
  for (int64_t i = 0; i < c.nodes; ++i) {
    const auto deepest = std::min(before + 1, c.levels - 1);
    const bool down = draws[0][i].item<int64_t>() % 4 != 0;
    before = down ? deepest : draws[1][i].item<int64_t>() % (deepest + 1);
    depths.mutable_data_ptr<int64_t>()[i] = before;
  }
  return depths;
}

at::Tensor attend(const at::Tensor& qkv, const at::Tensor& depths, const Case& c) {
  return prefix_attention(qkv, depths, c.levels, c.heads, c.kv_heads, kScale);
}

at::Tensor by_definition(const at::Tensor& qkv, const at::Tensor& depths, const Case& c) {
  return composite::prefix_attention({qkv, depths, c.levels, c.heads, c.kv_heads, kScale});
}

TEST(PrefixAttention, CpuAgreesWithComposite) {
  for (const Case& c : kCases) {
    for (const auto dtype : testing::kAllTypes) {
      const at::Tensor qkv = joint(c, dtype), depths = random_depths(c);
      const std::string what = std::to_string(c.levels) + " levels " + name_of(dtype);
      testing::expect_close(attend(qkv, depths, c), by_definition(qkv, depths, c), what);
      testing::expect_close(attend(qkv, depths.to(at::kInt), c), by_definition(qkv, depths, c),
                            what + " int32");
    }
  }
}

// A chain is a window, and a node's path through a tree a window of its own.
TEST(PrefixAttention, IsCausalAttentionAlongEachPath) {
  const Case c{1, 120, 9, 4, 2, 16};
  const at::Tensor qkv = joint(c, at::kFloat), depths = random_depths(c);
  const at::Tensor out = attend(qkv, depths, c);
  std::vector<int64_t> path;
  for (int64_t i = 0; i < c.nodes; ++i) {
    path.resize(depths[i].item<int64_t>());
    path.push_back(i);
    const at::Tensor rows = at::empty({static_cast<int64_t>(path.size())}, at::kLong);
    std::copy(path.begin(), path.end(), rows.mutable_data_ptr<int64_t>());
    const at::Tensor window =
        causal_attention(qkv.index_select(1, rows), c.heads, c.kv_heads, kScale);
    testing::expect_close(out.select(1, i), window.select(1, window.size(1) - 1),
                          "node " + std::to_string(i));
  }
}

TEST(PrefixAttention, DoesNotDependOnTheOtherModels) {
  const Case c{3, 70, 8, 4, 4, 16};
  const at::Tensor qkv = joint(c, at::kFloat), depths = random_depths(c);
  const at::Tensor all = attend(qkv, depths, c);
  for (int64_t a = 0; a < c.models; ++a)
    EXPECT_TRUE(identical(all.narrow(0, a, 1), attend(qkv.narrow(0, a, 1), depths, c)));
}

TEST(PrefixAttention, CompositeRunsOnCuda) {
  REFRACT_CUDA_OR_SKIP();
  const Case c{2, 90, 9, 6, 2, 8};
  const at::Tensor qkv = joint(c, at::kFloat), depths = random_depths(c);
  testing::expect_close(attend(qkv.cuda(), depths.cuda(), c).cpu(), attend(qkv, depths, c), "CUDA");
}

TEST(PrefixAttention, RefusesWhatDoesNotFit) {
  const Case c{1, 4, 4, 2, 2, 8};
  const at::Tensor qkv = joint(c, at::kFloat), depths = random_depths(c);
  const auto with = [&](std::vector<int64_t> values) {
    at::Tensor t = at::empty({static_cast<int64_t>(values.size())}, at::kLong);
    std::copy(values.begin(), values.end(), t.mutable_data_ptr<int64_t>());
    return t;
  };
  EXPECT_NO_THROW(attend(qkv, with({0, 1, 2, 1}), c));
  EXPECT_THROW(attend(qkv, with({0, 1, 2}), c), c10::Error);
  EXPECT_THROW(attend(qkv, with({1, 2, 3, 1}), c), c10::Error) << "begins below a root";
  EXPECT_THROW(attend(qkv, with({0, 2, 3, 1}), c), c10::Error) << "skips a level";
  EXPECT_THROW(attend(qkv, with({0, 1, -1, 0}), c), c10::Error);
  EXPECT_THROW(prefix_attention(qkv, with({0, 1, 2, 3}), 3, 2, 2, kScale), c10::Error);
  EXPECT_THROW(attend(qkv, depths.to(at::kFloat), c), c10::Error);
  EXPECT_THROW(prefix_attention(qkv, depths, 4, 3, 2, kScale), c10::Error);
}

}  // namespace many_prefix_attention_test
}  // namespace refract
