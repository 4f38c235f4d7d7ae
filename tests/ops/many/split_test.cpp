// Samples for tests/parity/test_every_op.py:
// opcheck: split_bfloat16(plain(4, 8))
// opcheck: split_gelu_bfloat16(plain(4, 8), True)
// opcheck: batched_linear_cross_entropy(plain(2, 5, 8), plain(2, 13, 8), torch.tensor([0, 3, 12,
//   1, 7]), 13, False)
#include "ops/many/split.h"

#include <ATen/ops/argmax.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/logsumexp.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/where.h>
#include <ATen/ops/zeros.h>
#include <gtest/gtest.h>

#include <cmath>
#include <string>
#include <utility>

#include "ops/dense/activation/activation.h"
#include "ops/dense/loss/cross_entropy.h"
#include "ops/many/batched_cross_entropy.h"
#include "support/cuda_guard.h"
#include "support/tolerances.h"

namespace refract {
namespace many_split_test {

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

TEST(Split, OfGeluIsGeluSplit) {
  for (const bool tanh : {false, true}) {
    const at::Tensor x = at::randn({7, 24}, at::kFloat).mul(3);
    EXPECT_TRUE(
        split_gelu_bfloat16(x, tanh).equal(split_bfloat16(bias_gelu(x, std::nullopt, tanh))));
  }
}

// Two units in the last place of GELU may lie between the kernels, so the sums are compared.
TEST(Split, OfGeluIsGeluSplitOnCuda) {
  REFRACT_CUDA_OR_SKIP();
  for (const bool tanh : {false, true}) {
    for (int64_t width : {3, 8, 768}) {
      const at::Tensor x = at::randn({5, 31, width}, at::kFloat).mul(3).cuda();
      const auto sum = [&](const at::Tensor& parts) {
        return parts.narrow(-1, width, width)
            .to(at::kFloat)
            .add(parts.narrow(-1, 2 * width, width).to(at::kFloat));
      };
      testing::expect_close(sum(split_gelu_bfloat16(x, tanh)),
                            sum(split_bfloat16(bias_gelu(x, std::nullopt, tanh))), "gelu");
    }
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
                                           classes, /*split=*/true)
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

struct Problem {
  at::ScalarType dtype = at::kBFloat16;
  bool split = true;
  int64_t models = 2, rows = 300, width = 32, classes = 1000, padding = 0;
};

struct Operands {
  at::Tensor x, weight, targets;
};

// Half of the targets are the first model's best class.
Operands operands(const Problem& p) {
  const auto options = at::TensorOptions().device(at::kCUDA).dtype(at::kFloat);
  const at::Tensor x = at::randn({p.models, p.rows, p.width}, options);
  const at::Tensor w = at::randn({p.models, p.classes + p.padding, p.width}, options)
                           .mul(2 / std::sqrt(static_cast<double>(p.width)));
  const at::Tensor best = at::argmax(at::matmul(x[0], w[0].narrow(0, 0, p.classes).t()), 1, false);
  const at::Tensor any =
      at::randn({p.rows}, options).abs().mul(1e4).to(at::kLong).remainder(p.classes);
  const at::Tensor targets = at::where(at::randn({p.rows}, options).gt(0), best, any);
  if (p.split) return {split_bfloat16(x), split_weight_bfloat16(w), targets};
  return {x.to(p.dtype), w.to(p.dtype), targets};
}

// The same products in float64: only the sums' rounding is left.
void expect_exact(const Problem& p) {
  const Operands o = operands(p);
  const BatchedCrossEntropy found =
      batched_linear_cross_entropy(o.x, o.weight, o.targets, p.classes, p.split);
  const at::Tensor logits =
      at::matmul(o.x.to(at::kDouble), o.weight.to(at::kDouble).transpose(1, 2))
          .narrow(2, 0, p.classes);
  const at::Tensor index = o.targets.view({1, -1, 1}).expand({p.models, p.rows, 1});
  const at::Tensor loss = at::logsumexp(logits, {2}).sub(logits.gather(2, index).squeeze(2));
  const at::Tensor correct = at::argmax(logits, 2, false).eq(o.targets).sum(1);
  const std::string what = "width " + std::to_string(p.width) + " rows " + std::to_string(p.rows) +
                           " classes " + std::to_string(p.classes) + (p.split ? " split" : "");
  testing::expect_close(found.loss_sum.to(at::kFloat), loss.sum(1).to(at::kFloat), what);
  EXPECT_TRUE(found.num_correct.equal(correct)) << what;
}

TEST(BatchedCrossEntropy, SixteenBitOperandsAreSummedInFp32) {
  REFRACT_CUDA_OR_SKIP();
  for (int64_t width : {32, 64, 96, 192, 384, 1152}) expect_exact({.rows = 259, .width = width});
  for (const auto dtype : {at::kBFloat16, at::kHalf}) {
    for (int64_t width : {8, 24, 32, 96, 192, 384, 576})
      expect_exact({.dtype = dtype, .split = false, .rows = 259, .width = width});
  }
}

TEST(BatchedCrossEntropy, RowsAndClassesNeedNotFillATile) {
  REFRACT_CUDA_OR_SKIP();
  for (int64_t rows : {1, 63, 64, 193}) expect_exact({.rows = rows});
  for (int64_t classes : {1, 2, 127, 128, 129, 300, 50257})
    expect_exact({.classes = classes, .padding = classes % 2 == 0 ? 0 : 47});
  for (int64_t classes : {3, 255, 50257})
    expect_exact({.models = 3, .rows = 77, .width = 384, .classes = classes, .padding = 300});
}

// The first of equals is the arg max, whatever lane and tile they lie in.
TEST(BatchedCrossEntropy, OfEqualsTheFirstIsTheArgMax) {
  REFRACT_CUDA_OR_SKIP();
  const auto options = at::TensorOptions().device(at::kCUDA).dtype(at::kBFloat16);
  for (const auto& [first, second] :
       {std::pair{5, 7}, {6, 7}, {3, 500}, {127, 128}, {8, 16}, {120, 600}}) {
    const at::Tensor x = at::randn({1, 40, 32}, options);
    at::Tensor w = at::randn({1, 700, 32}, options).mul(0.01);
    w.select(1, first).copy_(x.select(1, 0));
    w.select(1, second).copy_(x.select(1, 0));
    const at::Tensor row = x.narrow(1, 0, 1).expand({1, 40, 32}).contiguous();
    for (const int target : {first, second}) {
      const at::Tensor targets = at::empty({40}, options.dtype(at::kLong)).fill_(target);
      const auto found = batched_linear_cross_entropy(row, w, targets, 700);
      EXPECT_EQ(found.num_correct.item<int64_t>(), target == first ? 40 : 0)
          << first << " " << second << " " << target;
    }
  }
}

TEST(BatchedCrossEntropy, NaNAndBadTargetsShowInTheirModelOnly) {
  REFRACT_CUDA_OR_SKIP();
  for (const bool split : {false, true}) {
    const Problem p{.split = split, .models = 3, .rows = 70, .padding = 5};
    Operands o = operands(p);
    const auto sums = [&] {
      return batched_linear_cross_entropy(o.x, o.weight, o.targets, p.classes, split)
          .loss_sum.cpu();
    };
    const at::Tensor before = sums();
    o.targets[3] = -100;  // counts for nothing
    EXPECT_TRUE(sums().lt(before).all().item<bool>());
    o.weight[1][p.classes + 2].fill_(NAN);  // padding
    EXPECT_TRUE(sums().isfinite().all().item<bool>());
    o.weight[1][17][0] = NAN;
    const at::Tensor one = sums().isnan();
    EXPECT_TRUE(!one[0].item<bool>() && one[1].item<bool>() && !one[2].item<bool>());
    o.targets[4] = p.classes;
    EXPECT_TRUE(sums().isnan().all().item<bool>());
  }
}

// One class e^17 times as likely as each of the others, of which each is below half a unit in the
// last place of the sum, and all together 0.2% of it. Only those beside the class itself in its
// tile, eight to a partial sum, go for nothing: 2e-4 of the loss. A plain sum loses a quarter.
TEST(BatchedCrossEntropy, SmallSharesAddUpOnCuda) {
  REFRACT_CUDA_OR_SKIP();
  constexpr int64_t kClasses = 50257;
  at::Tensor x = at::zeros({1, 70, 64}, at::kFloat), w = at::zeros({1, kClasses, 64}, at::kFloat);
  x.select(2, 0).fill_(17);
  w.select(2, 0).select(1, 5000).fill_(1);
  const at::Tensor targets = at::zeros({70}, at::kLong).add(5000).cuda();
  const double expected = 70 * std::log1p((kClasses - 1) * std::exp(-17.0));
  const auto loss = [&](const at::Tensor& rows, const at::Tensor& weight, bool split) {
    return batched_linear_cross_entropy(rows, weight, targets, kClasses, split)
        .loss_sum.item<double>();
  };
  EXPECT_NEAR(loss(split_bfloat16(x.cuda()), split_weight_bfloat16(w.cuda()), true) / expected, 1,
              3e-4);
  EXPECT_NEAR(loss(x.to(at::kBFloat16).cuda(), w.to(at::kBFloat16).cuda(), false) / expected, 1,
              3e-4);
}

TEST(BatchedCrossEntropy, SaysWhatSplitOperandsAre) {
  const at::Tensor x = at::randn({1, 4, 32}, at::kFloat), targets = at::zeros({4}, at::kLong);
  EXPECT_THROW(batched_linear_cross_entropy(x, x, targets, 4, /*split=*/true), c10::Error);
}

}  // namespace many_split_test
}  // namespace refract
