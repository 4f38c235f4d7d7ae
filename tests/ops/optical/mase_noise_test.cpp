#include "ops/optical/quantize/mase_noise.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/tensor.h>

#include "ops/optical/quantize/quantization_math.h"
#include "support/compare.h"

namespace refract {
namespace optical_mase_noise_test {

at::Tensor seeds() {
  return at::cat({at::arange(3000, at::kLong),
                  at::tensor({int64_t{1} << 31, (int64_t{1} << 32) - 1, int64_t{1} << 32,
                              (int64_t{1} << 40) + 12345, (int64_t{1} << 62) + 7},
                             at::kLong)});
}

// Bit for bit, whatever does the arithmetic.
void expect_the_numbers(const at::Tensor& numbers) {
  const at::Tensor all = seeds(), found = numbers.to(at::kCPU);
  for (int64_t i = 0; i < all.numel(); ++i) {
    EXPECT_EQ(found[i].item<float>(),
              optical::mase_shared_noise(static_cast<uint64_t>(all[i].item<int64_t>())))
        << all[i].item<int64_t>();
  }
}

TEST(MaseNoise, ASeedOnADeviceGivesTheHostsNumber) {
  expect_the_numbers(mase_shared_noise(seeds()));
  expect_the_numbers(composite::mase_shared_noise(seeds()));
}
TEST(MaseNoise, ASeedOnADeviceGivesTheHostsNumberOnCuda) {
  REFRACT_CUDA_OR_SKIP();
  expect_the_numbers(mase_shared_noise(seeds().to(at::kCUDA)));
}

// Uniform in [-1/2, 1/2): mean and variance within five deviations, and the first about +0.298.
TEST(MaseNoise, IsUniformOverSeeds) {
  const at::Tensor numbers = mase_shared_noise(at::arange(100000, at::kLong)).to(at::kDouble);
  EXPECT_NEAR(numbers[0].item<double>(), 0.298, 5e-4);
  EXPECT_LT(numbers.abs().max().item<double>(), 0.5 + 1e-7);
  EXPECT_NEAR(numbers.mean().item<double>(), 0, 5 * std::sqrt(1.0 / 12 / 1e5));
  EXPECT_NEAR(numbers.square().mean().item<double>(), 1.0 / 12, 5 * std::sqrt(1.0 / 180 / 1e5));
}

TEST(MaseNoise, RefusesSeedsThatAreNotWhole) {
  EXPECT_THROW(mase_shared_noise(at::tensor({1.0f}, at::kFloat)), c10::Error);
}

}  // namespace optical_mase_noise_test
}  // namespace refract
