#include <ATen/ops/matmul.h>
#include <ATen/ops/randn.h>
#include <gtest/gtest.h>

#include "cuda_guard.h"
#include "ops/fused/batched_cross_entropy.h"
#include "ops/fused/cross_entropy.h"
#include "ops/fused/split.h"
#include "tolerances.h"

namespace refract {
namespace {

// Against float64, relative to sum |x w|. bfloat16 rounds to 8 bits, so a rest is at most 2^-8 of
// its number and is itself rounded by at most 2^-16 of it: one such error for each operand, and the
// product of the rests, which is left out.
constexpr double kSplitError = 3.0 / (1 << 16);

void expect_product(const at::Tensor& x, const at::Tensor& w) {
  const at::Tensor product =
      at::matmul(split_bfloat16(x).to(at::kDouble), split_weight_bfloat16(w).to(at::kDouble).t());
  const at::Tensor exact = at::matmul(x.to(at::kDouble), w.to(at::kDouble).t());
  const at::Tensor scale = at::matmul(x.to(at::kDouble).abs(), w.to(at::kDouble).abs().t());
  EXPECT_LT(product.sub(exact).abs().div(scale).max().item<double>(), kSplitError);
}

TEST(Split, ProductsAreWithinTheirBound) {
  for (int64_t width : {1, 3, 8, 64, 200}) {
    const at::Tensor x = at::randn({17, width}, at::kFloat), w = at::randn({9, width}, at::kFloat);
    EXPECT_EQ(split_bfloat16(x).size(-1), 3 * width);
    expect_product(x, w);
    expect_product(x.mul(1e-20), w.mul(1e15));
  }
}

TEST(Split, TheKernelIsTheCompositeForm) {
  REFRACT_CUDA_OR_SKIP();
  for (int64_t width : {3, 8, 64, 200, 1152}) {
    const at::Tensor x = at::randn({5, 31, width}, at::kFloat);
    EXPECT_TRUE(split_bfloat16(x.cuda()).cpu().equal(split_bfloat16(x))) << width;
  }
}

// One model after the other, whatever the cut into chunks.
void expect_losses(at::Device device, int64_t models, int64_t rows, int64_t classes, bool split) {
  const at::Tensor x = at::randn({models, rows, 32}, at::kFloat).to(device);
  const at::Tensor w = at::randn({models, classes + 7, 32}, at::kFloat).to(device);
  const at::Tensor targets =
      at::randn({rows}, at::kFloat).abs().mul(1e4).to(at::kLong).remainder(classes).to(device);
  const BatchedCrossEntropy many =
      split ? batched_linear_cross_entropy(split_bfloat16(x), split_weight_bfloat16(w), targets,
                                           classes, /*wide_logits=*/true)
            : batched_linear_cross_entropy(x, w, targets, classes);
  for (int64_t a = 0; a < models; ++a) {
    const CrossEntropy one = linear_cross_entropy(x[a], w[a], targets, classes);
    // Logits here reach 30, so 2^-16 of the summed magnitudes is up to 1e-3 a row.
    const double allowed = (split ? 1e-4 : 1e-6) * one.loss_sum.item<double>() + 1e-5;
    EXPECT_NEAR(many.loss_sum[a].item<double>(), one.loss_sum.item<double>(), allowed) << a;
    EXPECT_NEAR(static_cast<double>(many.num_correct[a].item<int64_t>()),
                static_cast<double>(one.num_correct.item<int64_t>()), split ? 1 : 0);
  }
}

TEST(BatchedCrossEntropy, IsEachModelsOwn) {
  for (bool split : {false, true}) {
    expect_losses(at::kCPU, 3, 50, 13, split);
    expect_losses(at::kCPU, 2, 40, 3000, split);
  }
}

TEST(BatchedCrossEntropy, IsEachModelsOwnOnCuda) {
  REFRACT_CUDA_OR_SKIP();
  for (bool split : {false, true}) {
    expect_losses(at::Device(at::kCUDA, 0), 5, 3000, 65, split);     // in the cache
    expect_losses(at::Device(at::kCUDA, 0), 29, 1100, 5000, split);  // in groups of models
    expect_losses(at::Device(at::kCUDA, 0), 3, 2500, 50257, split);
  }
}

}  // namespace
}  // namespace refract
