// low_rank against its definition, and how it starts from a dense weight.
#include <ATen/ops/linalg_svdvals.h>
#include <ATen/ops/linear.h>
#include <ATen/ops/matmul.h>
#include <gtest/gtest.h>

#include "model/parameters.h"
#include "transforms/one_layer.h"
#include "transforms/structured/shapes.h"

namespace refract {
namespace low_rank_test {

using testing::expect_same;
using testing::for_all;
using testing::kShapes;
using testing::normal;
using testing::OneLayer;

TEST(Structured, LowRankEqualsItsDefinition) {
  for_all("low_rank", {0}, 4, [](OneLayer& one, const at::Tensor& x) {
    const at::Tensor dense = at::matmul(one.value("layer.U.weight"), one.value("layer.V.weight"));
    expect_same(one.forward(x), at::linear(x, dense));
    expect_same(one.layer->merged(), dense);
  });
}

TEST(Structured, LowRankStartsFromTheSvdOfTheDenseLayersOwnWeight) {
  OneLayer one(R"({"kind": "low_rank", "rank": 8})", 8, 16, 7);
  const at::Tensor dense = draw_normal({16, 8}, 7, "init:layer.weight", 0.02).to(at::kDouble);
  expect_same(one.layer->merged(), dense);  // of full rank nothing is lost
  const at::Tensor u = one.value("layer.U.weight"), v = one.value("layer.V.weight");
  // Both carry the roots of the singular values.
  expect_same(at::matmul(u.t(), u), at::matmul(v, v.t()));
}

TEST(Structured, LowRankTakesOverByTheTruncatedSvd) {
  for (const auto& [in, out] : kShapes) {
    OneLayer one(R"({"kind": "low_rank", "rank": 3})", in, out);
    const at::Tensor weight = normal({out, in});
    const at::Tensor s = at::linalg_svdvals(weight);
    const double best = s.slice(0, 3).norm().item<double>() / s.norm().item<double>();
    EXPECT_NEAR(one.layer->take_over(weight), best, 1e-9);  // Eckart and Young
  }
}

}  // namespace low_rank_test
}  // namespace refract
