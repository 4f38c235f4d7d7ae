// Samples for tests/parity/test_every_op.py:
// opcheck: blend(normal(2, 5), normal(2, 5), torch.tensor([0.25]))
#include "ops/structured/blend.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/full.h>
#include <ATen/ops/ones_like.h>

#include "support/compare.h"
#include "support/gradcheck.h"

namespace refract {
namespace structured_blend_test {

using testing::name_of;
using testing::normal;
using testing::Tensors;

at::Tensor share_of(double a, at::Device device = at::kCPU) {
  return at::full({1}, a, at::TensorOptions().dtype(at::kFloat).device(device));
}

// The definition in float64 with the share as float32 holds it, rounded once.
at::Tensor expected(const at::Tensor& y, const at::Tensor& guide, double a) {
  const double share = static_cast<float>(a);
  return y.to(at::kDouble).mul(1 - share).add(guide.to(at::kDouble).mul(share)).to(y.scalar_type());
}

constexpr double kShares[] = {0.0, 1e-4, 0.3, 0.999, 0.9999, 1.0};

void expect_weighted_mean(at::Device device) {
  for (const auto dtype : testing::kAllTypes) {
    for (const double a : kShares) {
      const at::Tensor y = normal({33, 70}, dtype), guide = normal({33, 70}, dtype);
      const at::Tensor out =
          blend(y.to(device), guide.to(device), share_of(a, device)).to(at::kCPU);
      testing::expect_close(out, expected(y, guide, a), name_of(dtype) + " " + std::to_string(a));
      if (a == 0 || a == 1) {
        EXPECT_TRUE(out.equal(a == 0 ? y : guide)) << name_of(dtype);
      }
    }
  }
}

// Rounded to bfloat16 these shares are 1, and 1 - a would be nothing.
void expect_gradient_near_one(at::Device device) {
  for (const auto dtype : {at::kBFloat16, at::kHalf}) {
    for (const double a : {0.999, 0.9999}) {
      const at::Tensor y = normal({4, 8}, dtype).to(device).requires_grad_(true);
      const at::Tensor guide = normal({4, 8}, dtype).to(device).requires_grad_(true);
      const at::Tensor out = blend(y, guide, share_of(a, device));
      const auto grads = torch::autograd::grad({out}, {y, guide}, {at::ones_like(out)});
      const double rest = 1.0 - static_cast<double>(static_cast<float>(a));
      EXPECT_EQ(grads[0].scalar_type(), dtype);
      // One rounding to 8 bits of significand at most.
      EXPECT_LT(grads[0].to(at::kDouble).sub(rest).abs().max().item<double>(), rest / 256);
      EXPECT_LT(grads[1].to(at::kDouble).sub(a).abs().max().item<double>(), 1.0 / 256);
    }
  }
}

TEST(Blend, CpuIsTheWeightedMean) { expect_weighted_mean(at::kCPU); }
TEST(Blend, CudaIsTheWeightedMean) {
  REFRACT_CUDA_OR_SKIP();
  expect_weighted_mean(at::kCUDA);
}

TEST(Blend, AShareNearOneLeavesAGradientInHalfTypes) { expect_gradient_near_one(at::kCPU); }
TEST(Blend, AShareNearOneLeavesAGradientInHalfTypesOnCuda) {
  REFRACT_CUDA_OR_SKIP();
  expect_gradient_near_one(at::kCUDA);
}

TEST(Blend, GradientsAreRight) {
  testing::expect_gradients(
      [](const Tensors& t) { return Tensors{blend(t[0], t[1], share_of(0.75))}; },
      {normal({3, 4}, at::kDouble), normal({3, 4}, at::kDouble)}, "blend");
}

TEST(Blend, RefusesWhatDoesNotFit) {
  const at::Tensor y = normal({3, 4}, at::kFloat);
  EXPECT_THROW(blend(y, normal({4, 3}, at::kFloat), share_of(0.5)), c10::Error);
  EXPECT_THROW(blend(y, normal({3, 4}, at::kDouble), share_of(0.5)), c10::Error);
  EXPECT_THROW(blend(y, y, share_of(0.5).to(at::kBFloat16)), c10::Error);
  EXPECT_THROW(blend(y, y, share_of(0.5).expand({2})), c10::Error);
}

}  // namespace structured_blend_test
}  // namespace refract
