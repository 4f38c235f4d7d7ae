#include "analysis/curvature/lanczos.h"

#include <ATen/ops/diag.h>
#include <ATen/ops/linalg_eigh.h>
#include <ATen/ops/linalg_qr.h>
#include <ATen/ops/ones.h>
#include <gtest/gtest.h>

#include <cmath>
#include <string>
#include <tuple>

#include "model/parameters.h"

namespace refract {
namespace lanczos_test {

constexpr int64_t kSize = 80;

at::Tensor random_matrix(const std::string& name) {
  return draw_normal({kSize, kSize}, 1, name, 1).to(at::kDouble);
}

// Four large eigenvalues over a continuum, and one far below it, as Hessians have them.
at::Tensor hessian_like() {
  at::Tensor values = draw_normal({kSize}, 1, "values", 1).to(at::kDouble);
  const double large[] = {50, 40, 39.5, 20};
  for (int64_t i = 0; i < 4; ++i) values[i] = large[i];
  values[4] = -30;
  const at::Tensor q = std::get<0>(at::linalg_qr(random_matrix("turn")));
  return q.mm(at::diag(values)).mm(q.t());
}

TEST(Lanczos, FindsTheLargestEigenvaluesThroughRestarts) {
  const at::Tensor matrix = hessian_like();
  const at::Tensor values = std::get<0>(at::linalg_eigh(matrix));
  const LinearOperator product = [&](const at::Tensor& v) { return matrix.mv(v); };
  LanczosOptions options;
  options.tolerance = 1e-9;
  options.most_products = 400;
  options.basis = 12;
  const Spectrum found = largest_eigenvalues(product, at::ones({kSize}, at::kDouble), options);
  EXPECT_TRUE(found.converged);
  EXPECT_GT(found.products, options.basis);  // it did restart
  for (int64_t i = 0; i < 5; ++i) {
    const Eigenvalue& one = found.largest[static_cast<size_t>(i)];
    EXPECT_NEAR(one.value, values[kSize - 1 - i].item<double>(), 1e-8);
    EXPECT_LT(one.residual, 1e-9 * 50);
  }
  EXPECT_NEAR(found.smallest.value, -30, 1e-6);
  EXPECT_LT(found.asymmetry, 1e-9);
  const at::Tensor rest = product(found.direction).sub(found.direction, 50);
  EXPECT_LT(rest.norm().item<double>(), 1e-7);
}

TEST(Lanczos, ResidualsHoldWhereItStopsEarly) {
  const at::Tensor matrix = hessian_like();
  const at::Tensor values = std::get<0>(at::linalg_eigh(matrix));
  LanczosOptions options;
  options.most_products = 9;
  const Spectrum found = largest_eigenvalues([&](const at::Tensor& v) { return matrix.mv(v); },
                                             at::ones({kSize}, at::kDouble), options);
  EXPECT_FALSE(found.converged);
  EXPECT_EQ(found.products, 9);
  for (const Eigenvalue& one : found.largest)
    EXPECT_LE(values.sub(one.value).abs().min().item<double>(), one.residual * (1 + 1e-9));
}

TEST(Lanczos, SaysWhenAnOperatorIsNotSymmetric) {
  const at::Tensor matrix = hessian_like().add(random_matrix("askew"), 0.5);
  const Spectrum found = largest_eigenvalues([&](const at::Tensor& v) { return matrix.mv(v); },
                                             at::ones({kSize}, at::kDouble), {});
  EXPECT_GT(found.asymmetry, 0.01);
}

TEST(Lanczos, StopsWhereTheSpaceIsInvariant) {
  at::Tensor values = at::ones({kSize}, at::kDouble);
  values[3] = 7;
  const Spectrum found = largest_eigenvalues([&](const at::Tensor& v) { return v.mul(values); },
                                             at::ones({kSize}, at::kDouble), {});
  ASSERT_EQ(found.largest.size(), 2U);  // there are two different ones
  EXPECT_TRUE(found.converged);
  EXPECT_NEAR(found.largest[0].value, 7, 1e-12);
  EXPECT_NEAR(found.largest[1].value, 1, 1e-12);
}

TEST(Lanczos, QuadratureHasTheMomentsOfTheOperator) {
  const at::Tensor matrix = hessian_like(), x = at::ones({kSize}, at::kDouble);
  const Quadrature found =
      lanczos_quadrature([&](const at::Tensor& v) { return matrix.mv(v); }, x, 6);
  ASSERT_EQ(found.nodes.size(), 6U);
  at::Tensor power = x;
  for (int moment = 0; moment < 12; ++moment) {  // 2 steps - 1 are exact
    double sum = 0;
    for (size_t i = 0; i < found.nodes.size(); ++i)
      sum += found.weights[i] * std::pow(found.nodes[i], moment);
    const double expected = x.dot(power).item<double>() / kSize;
    EXPECT_NEAR(sum, expected, 1e-9 * std::pow(50, moment)) << moment;
    power = matrix.mv(power);
  }
}

}  // namespace lanczos_test
}  // namespace refract
