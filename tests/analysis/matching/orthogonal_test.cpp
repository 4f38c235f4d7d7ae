#include "analysis/matching/orthogonal.h"

#include <ATen/ops/eye.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/ones.h>
#include <gtest/gtest.h>

#include "model/parameters.h"
#include "support/symmetries.h"
#include "support/tolerances.h"

namespace refract {
namespace orthogonal_test {

using testing::expect_close;

at::Tensor random_matrix(int64_t n, uint64_t seed) {
  return draw_normal({n, n}, seed, "matrix", 1).to(at::kDouble);
}

at::Tensor identity(int64_t n) { return at::eye(n, at::kDouble); }

TEST(Procrustes, FindsTheRotationThatAMatrixWasTurnedBy) {
  const at::Tensor q = testing::random_rotation(9), x = random_matrix(9, 1);
  expect_close(procrustes(at::matmul(at::matmul(q, x), x.t())), q, "rotation", 100);
}

TEST(Procrustes, ThatKeepsTheMeanIsTheBestOfThose) {
  const at::Tensor score = random_matrix(7, 2);
  const at::Tensor q = procrustes_keeping_mean(score);
  expect_close(at::matmul(q, q.t()), identity(7), "orthogonal");
  const at::Tensor ones = at::ones({7}, at::kDouble);
  expect_close(at::matmul(q, ones), ones, "the mean's direction");
  const double best = q.mul(score).sum().item<double>();
  for (uint64_t seed = 10; seed < 40; ++seed) {  // near it and far from it
    const double size = seed % 2 == 0 ? 0.05 : 2;
    const at::Tensor turn = rotation_of(random_matrix(7, seed).mul(size), /*keeps_mean=*/true);
    EXPECT_LT(at::matmul(turn, q).mul(score).sum().item<double>(), best);
  }
}

TEST(RotationOf, IsOrthogonalAndBeginsAtTheIdentity) {
  for (const bool keeps_mean : {false, true}) {
    const at::Tensor x = random_matrix(8, 3);
    const at::Tensor q = rotation_of(x, keeps_mean);
    expect_close(at::matmul(q, q.t()), identity(8), "orthogonal");
    EXPECT_GT(q.sub(identity(8)).abs().max().item<double>(), 0.1);
    expect_close(rotation_of(x.mul(0), keeps_mean), identity(8), "of 0");
    const at::Tensor ones = at::ones({8}, at::kDouble);
    const double moved = at::matmul(q, ones).sub(ones).abs().max().item<double>();
    if (keeps_mean) {
      EXPECT_LT(moved, 1e-12);
    } else {
      EXPECT_GT(moved, 0.1);
    }
  }
}

}  // namespace orthogonal_test
}  // namespace refract
