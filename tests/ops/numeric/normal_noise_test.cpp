// Samples for tests/parity/test_every_op.py:
// opcheck: normal_noise(plain(4, 8), 1, 2, torch.tensor([3, 8]))
#include "ops/numeric/normal_noise.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/tensor.h>

#include <cmath>
#include <tuple>

#include "support/compare.h"
#include "support/kolmogorov_smirnov.h"

namespace refract {
namespace numeric_normal_noise_test {

using testing::identical;

at::Tensor clock_of(int64_t step, int64_t first) {
  return at::tensor({step, first}, at::TensorOptions().dtype(at::kLong));
}

at::Tensor draw(int64_t count, int64_t seed, int64_t stream, int64_t step, int64_t first) {
  return normal_noise(at::empty({count}), seed, stream, clock_of(step, first));
}

// Logarithm, sine and cosine are polynomials in the kernel: a few units in the last place of
// numbers below 6.
TEST(NormalNoise, CpuIsTheComposite) {
  for (const int64_t n : {0, 1, 3, 255, 5000}) {
    for (const int64_t first : {0, 1, 6, 1 << 20}) {
      const at::Tensor like = at::empty({n}), clock = clock_of(5, first);
      const at::Tensor found = normal_noise(like, 9, -2, clock);
      const at::Tensor expected = composite::normal_noise({like, 9, -2, clock});
      ASSERT_EQ(found.sizes(), expected.sizes());
      EXPECT_LT((found - expected).abs().sum().item<double>(), 4e-6 * static_cast<double>(n + 1));
    }
  }
}

TEST(NormalNoise, CudaIsTheCpu) {
  REFRACT_CUDA_OR_SKIP();
  const at::Tensor like = at::empty({5000}), clock = clock_of(5, 3);
  const at::Tensor there = normal_noise(like.to(at::kCUDA), 9, -2, clock.to(at::kCUDA));
  const at::Tensor here = normal_noise(like, 9, -2, clock);
  EXPECT_LT((there.to(at::kCPU) - here).abs().max().item<double>(), 4e-6);
}

TEST(NormalNoise, StreamsSeedsAndStepsDrawOthersAndAPartDrawsWhatTheWholeDraws) {
  const at::Tensor one = draw(4000, 1, 2, 3, 0);
  EXPECT_TRUE(identical(one, draw(4000, 1, 2, 3, 0)));
  for (const auto& [seed, stream, step] : {std::tuple{2, 2, 3}, {1, 3, 3}, {1, 2, 4}})
    EXPECT_GT((one - draw(4000, seed, stream, step, 0)).abs().mean().item<double>(), 0.5);
  EXPECT_TRUE(identical(one.narrow(0, 1001, 501), draw(501, 1, 2, 3, 1001)));
}

// The distance of the empirical distribution from the normal one, at a level of one in 10^4.
TEST(NormalNoise, NumbersAreNormalAndIndependentOfTheirNeighbours) {
  const int64_t n = 200'000;
  const at::Tensor x = draw(n, 4, 5, 6, 7);
  EXPECT_LT(testing::ks_distance(x, testing::normal_distribution), testing::ks_limit(n));
  const at::Tensor wide = x.to(at::kDouble);
  const double deviation = 1 / std::sqrt(static_cast<double>(n));
  for (const int64_t lag : {1, 2, 3, 4}) {
    const at::Tensor product = wide.narrow(0, 0, n - lag) * wide.narrow(0, lag, n - lag);
    EXPECT_LT(std::abs(product.mean().item<double>()), 5 * deviation) << lag;
    const at::Tensor squares =
        (wide.narrow(0, 0, n - lag).square() - 1) * (wide.narrow(0, lag, n - lag).square() - 1);
    EXPECT_LT(std::abs(squares.mean().item<double>()), 2 * 5 * deviation) << lag;
  }
}

TEST(NormalNoise, RefusesAClockThatIsNone) {
  EXPECT_THROW(normal_noise(at::empty({3}), 1, 2, at::tensor({1.0f, 2.0f})), c10::Error);
  EXPECT_THROW(
      normal_noise(at::empty({3}), 1, 2, at::tensor({1}, at::TensorOptions().dtype(at::kLong))),
      c10::Error);
}

}  // namespace numeric_normal_noise_test
}  // namespace refract
