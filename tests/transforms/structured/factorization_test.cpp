// The matrix factorisations behind structured layers.
#include "transforms/structured/factorization.h"

#include <ATen/ops/matmul.h>
#include <ATen/ops/zeros.h>
#include <gtest/gtest.h>

#include <cstdint>
#include <vector>

#include "transforms/one_layer.h"

namespace refract {
namespace factorization_test {

using testing::expect_same;
using testing::normal;

TEST(Structured, TruncatedSvdPadsRanksBeyondTheFullOne) {
  const at::Tensor weight = normal({3, 4, 6});
  const auto [u, v] = truncated_svd(weight, 5);
  EXPECT_EQ(u.sizes(), (std::vector<int64_t>{3, 4, 5}));
  expect_same(at::matmul(u, v), weight);
  const auto [zero_u, zero_v] = truncated_svd(at::zeros({4, 6}, weight.options()), 2);
  expect_same(at::matmul(zero_u, zero_v), at::zeros({4, 6}, weight.options()), 1e-300);
}

}  // namespace factorization_test
}  // namespace refract
