// Samples for tests/parity/test_every_op.py:
// opcheck: linear_cross_entropy(normal(6, 8), normal(11, 8), torch.randint(9, (6,)), 9)
// opcheck: linear_cross_entropy_forward(plain(6, 8), plain(11, 8), torch.randint(9, (6,)), 9,
//   True, True)
// opcheck: scale_cast(plain(6, 8), torch.tensor(0.5), torch.bfloat16)
#include "ops/dense/loss/cross_entropy.h"

#include <ATen/Context.h>
#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/cross_entropy_loss.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/linear.h>
#include <ATen/ops/randint.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/zeros.h>
#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>

#include "support/cuda_guard.h"
#include "support/gradcheck.h"
#include "support/tolerances.h"

namespace refract {
namespace dense_cross_entropy_test {

using testing::expect_close;

struct Case {
  int64_t n, width, classes, padded;
};

// Odd sizes, one row, one class, padding, several blocks of classes and chunks of rows, both the
// width at which the CPU makes logits twice and the one at which it keeps them.
const Case kCases[] = {{1, 1, 1, 1},          {3, 5, 7, 7},         {5, 8, 65, 128},
                       {300, 32, 5003, 5056}, {40, 96, 3001, 3008}, {1100, 80, 517, 520}};

struct Data {
  at::Tensor x, weight, targets;
};

Data make(const Case& c, at::ScalarType dtype, at::DeviceType device = at::kCPU) {
  at::globalContext().defaultGenerator(at::kCPU);
  Data data;
  const auto wide = at::TensorOptions().dtype(at::kDouble);
  data.x = at::randn({c.n, c.width}, wide).to(device, dtype);
  data.weight = (at::randn({c.padded, c.width}, wide) * 0.3).to(device, dtype);
  data.targets = at::randint(c.classes, {c.n}, at::TensorOptions().dtype(at::kLong));
  if (c.n > 2) data.targets[c.n / 2] = kIgnoredTarget;
  data.targets = data.targets.to(device);
  return data;
}

struct Result {
  at::Tensor loss, correct, dx, dweight;
};

// Through autograd, with a gradient of 1/7 coming in.
Result run(const Data& data, int64_t classes) {
  const at::Tensor x = data.x.detach().requires_grad_(true);
  const at::Tensor weight = data.weight.detach().requires_grad_(true);
  const auto out = linear_cross_entropy(x, weight, data.targets, classes);
  const auto grads = torch::autograd::grad({out.loss_sum / 7.0}, {x, weight});
  return {out.loss_sum.detach(), out.num_correct, grads[0], grads[1]};
}

// The definition, from whole logits in float64.
Result reference(const Data& data, int64_t classes) {
  const at::Tensor x = data.x.to(at::kDouble).requires_grad_(true);
  const at::Tensor weight = data.weight.to(at::kDouble).requires_grad_(true);
  const at::Tensor logits = at::linear(x, weight.narrow(0, 0, classes));
  const at::Tensor loss = at::cross_entropy_loss(logits, data.targets, {}, at::Reduction::Sum);
  const auto grads = torch::autograd::grad({loss / 7.0}, {x, weight});
  return {loss.detach(), logits.argmax(1).eq(data.targets).sum(), grads[0], grads[1]};
}

void expect_matches(const Result& actual, const Result& expected, at::ScalarType dtype,
                    const std::string& what, double factor) {
  const bool wide = dtype == at::kDouble;
  expect_close(actual.loss, expected.loss.to(wide ? at::kDouble : at::kFloat), what + " loss",
               dtype == at::kBFloat16 || dtype == at::kHalf ? 100 : factor);
  expect_close(actual.dx, expected.dx.to(dtype), what + " dx", factor);
  expect_close(actual.dweight, expected.dweight.to(dtype), what + " dweight", factor);
}

std::string name(const Case& c, at::ScalarType dtype) {
  return "N=" + std::to_string(c.n) + " C=" + std::to_string(c.width) +
         " V=" + std::to_string(c.classes) + " " + c10::toString(dtype);
}

TEST(CrossEntropy, CpuMatchesTheDefinition) {
  for (const auto& c : kCases) {
    for (const auto dtype : {at::kDouble, at::kFloat, at::kBFloat16, at::kHalf}) {
      const Data data = make(c, dtype);
      const Result actual = run(data, c.classes), expected = reference(data, c.classes);
      // Sums over a thousand rows in fp32 carry a few more units than the table's one operation.
      expect_matches(actual, expected, dtype, name(c, dtype), 4);
      EXPECT_EQ(actual.correct.item<int64_t>(), expected.correct.item<int64_t>()) << name(c, dtype);
      const at::Tensor padding = actual.dweight.narrow(0, c.classes, c.padded - c.classes);
      EXPECT_TRUE(at::equal(padding, at::zeros_like(padding)));
    }
  }
}

TEST(CrossEntropy, CompositeMatchesTheCpuKernel) {
  for (const auto& c : kCases) {
    for (const auto dtype : {at::kDouble, at::kFloat}) {
      const Data data = make(c, dtype);
      for (const int64_t rows : {int64_t{0}, int64_t{3}, int64_t{128}}) {
        auto [loss, correct, dx, dw] = linear_cross_entropy_forward(
            data.x, data.weight, data.targets, c.classes, true, true, rows);
        auto [loss2, correct2, dx2, dw2] = composite::linear_cross_entropy_forward(
            {data.x, data.weight, data.targets, c.classes, true, true, rows});
        expect_close(loss, loss2, name(c, dtype), 4);
        expect_close(dx, dx2, name(c, dtype), 4);
        expect_close(dw, dw2, name(c, dtype), 4);
        EXPECT_EQ(correct.item<int64_t>(), correct2.item<int64_t>()) << name(c, dtype);
      }
    }
  }
}

TEST(CrossEntropy, GradientIsThatOfTheLoss) {
  for (const Case& c : {Case{4, 3, 5, 5}, Case{5, 70, 9, 12}}) {
    Data data = make(c, at::kDouble);
    testing::expect_gradients(
        [&](const testing::Tensors& in) -> testing::Tensors {
          return {linear_cross_entropy(in[0], in[1], data.targets, c.classes).loss_sum};
        },
        {data.x, data.weight}, name(c, at::kDouble));
  }
}

TEST(CrossEntropy, WithoutGradientGivesTheSameLoss) {
  const Case c = kCases[3];
  const Data data = make(c, at::kFloat);
  const Result with = run(data, c.classes);
  const auto without = linear_cross_entropy(data.x, data.weight, data.targets, c.classes);
  EXPECT_FALSE(without.loss_sum.requires_grad());
  EXPECT_EQ(without.loss_sum.item<float>(), with.loss.item<float>());
  EXPECT_EQ(without.num_correct.item<int64_t>(), with.correct.item<int64_t>());
}

TEST(CrossEntropy, OneInputMayNeedNoGradient) {
  const Case c = kCases[2];
  Data data = make(c, at::kFloat);
  const Result both = run(data, c.classes);
  const at::Tensor x = data.x.detach().requires_grad_(true);
  const auto out = linear_cross_entropy(x, data.weight, data.targets, c.classes);
  const auto grads = torch::autograd::grad({out.loss_sum / 7.0}, {x});
  EXPECT_TRUE(at::equal(grads[0], both.dx));
}

TEST(CrossEntropy, TiesGoToTheLowestClass) {
  const at::Tensor x = at::ones({2, 4});
  const at::Tensor weight = at::ones({6, 4});
  const at::Tensor targets = at::zeros({2}, at::TensorOptions().dtype(at::kInt));
  targets[1] = 3;
  EXPECT_EQ(linear_cross_entropy(x, weight, targets, 6).num_correct.item<int64_t>(), 1);
  auto out = composite::linear_cross_entropy_forward({x, weight, targets, 6, false, false});
  EXPECT_EQ(std::get<1>(out).item<int64_t>(), 1);
}

TEST(CrossEntropy, IgnoredAndEmpty) {
  Data data = make(kCases[1], at::kFloat);
  data.targets.fill_(kIgnoredTarget);
  const Result ignored = run(data, 7);
  EXPECT_EQ(ignored.loss.item<float>(), 0.0f);
  EXPECT_EQ(ignored.correct.item<int64_t>(), 0);
  EXPECT_EQ(ignored.dx.abs().sum().item<float>(), 0.0f);
  EXPECT_EQ(ignored.dweight.abs().sum().item<float>(), 0.0f);
  const Data empty{data.x.narrow(0, 0, 0), data.weight, data.targets.narrow(0, 0, 0)};
  const Result none = run(empty, 7);
  EXPECT_EQ(none.loss.item<float>(), 0.0f);
  EXPECT_EQ(none.dweight.abs().sum().item<float>(), 0.0f);
}

TEST(CrossEntropy, LeadingDimensionsAndStrides) {
  const Case c{12, 8, 19, 24};
  const Data data = make(c, at::kFloat);
  const Result flat = run(data, c.classes);
  Data shaped = data;
  shaped.x = data.x.t().contiguous().t().view({12, 8}).unsqueeze(0).expand({1, 12, 8});
  shaped.targets = data.targets.view({1, 12}).to(at::kInt);
  const Result actual = run(shaped, c.classes);
  EXPECT_TRUE(at::equal(actual.dx.view({12, 8}), flat.dx));
  EXPECT_TRUE(at::equal(actual.loss, flat.loss));
}

TEST(CrossEntropy, BadArgumentsAreNamed) {
  Data data = make(kCases[1], at::kFloat);
  EXPECT_THROW(linear_cross_entropy(data.x, data.weight, data.targets, 8), c10::Error);
  EXPECT_THROW(linear_cross_entropy(data.x, data.weight.to(at::kDouble), data.targets, 7),
               c10::Error);
  data.targets[0] = 7;
  EXPECT_THROW(linear_cross_entropy(data.x, data.weight, data.targets, 7), c10::Error);
}

TEST(CrossEntropy, RepeatsBitForBit) {
  const Case c = kCases[3];
  const Data data = make(c, at::kFloat);
  const Result a = run(data, c.classes), b = run(data, c.classes);
  EXPECT_TRUE(at::equal(a.loss, b.loss));
  EXPECT_TRUE(at::equal(a.dx, b.dx));
  EXPECT_TRUE(at::equal(a.dweight, b.dweight));
}

TEST(CrossEntropy, ChunksFitTheirLimit) {
  EXPECT_EQ(cross_entropy::chunk_rows(32768, 50304 * 2, int64_t{512} << 20), 4736);
  EXPECT_EQ(cross_entropy::chunk_rows(1, 4, 1 << 20), 128);
  EXPECT_EQ(cross_entropy::chunk_rows(1000, int64_t{1} << 30, 1 << 20), 128);
}

TEST(CrossEntropy, CudaMatchesTheDefinition) {
  REFRACT_CUDA_OR_SKIP();
  // The last rows are too long for shared memory: fp32 above 57,000 classes.
  std::vector<Case> cases(std::begin(kCases), std::end(kCases));
  cases.push_back({70, 64, 50257, 50304});
  cases.push_back({9, 64, 128256, 128256});
  for (const auto& c : cases) {
    for (const auto dtype : {at::kDouble, at::kFloat, at::kBFloat16, at::kHalf}) {
      const Data data = make(c, dtype, at::kCUDA);
      const Result expected = reference(data, c.classes), actual = run(data, c.classes);
      // Half types round the logits too.
      const bool half = dtype == at::kBFloat16 || dtype == at::kHalf;
      expect_matches(actual, expected, dtype, "CUDA " + name(c, dtype), half ? 3 : 4);
      if (!half) {
        EXPECT_EQ(actual.correct.item<int64_t>(), expected.correct.item<int64_t>());
      }
      const Result again = run(data, c.classes);
      EXPECT_TRUE(at::equal(actual.dweight, again.dweight)) << name(c, dtype);
      EXPECT_TRUE(at::equal(actual.dx, again.dx)) << name(c, dtype);
      EXPECT_TRUE(at::equal(actual.loss, again.loss)) << name(c, dtype);
    }
  }
}

TEST(CrossEntropy, CudaChunksAgree) {
  REFRACT_CUDA_OR_SKIP();
  const Case c{700, 64, 5003, 5003};
  for (const auto dtype : {at::kFloat, at::kBFloat16}) {
    const Data data = make(c, dtype, at::kCUDA);
    auto one = linear_cross_entropy_forward(data.x, data.weight, data.targets, c.classes, true,
                                            true, 1024);
    auto many =
        linear_cross_entropy_forward(data.x, data.weight, data.targets, c.classes, true, true, 128);
    expect_close(std::get<0>(many), std::get<0>(one), "loss", 4);
    expect_close(std::get<2>(many), std::get<2>(one), "dx", 4);
    // fp32 sums of half products: the table's half entry would hide a lost chunk.
    expect_close(std::get<3>(many), std::get<3>(one), "dweight", 10);
    EXPECT_EQ(std::get<1>(many).item<int64_t>(), std::get<1>(one).item<int64_t>());
  }
}

TEST(CrossEntropy, CudaBadTargetGivesNaN) {
  REFRACT_CUDA_OR_SKIP();
  Data data = make(kCases[2], at::kBFloat16, at::kCUDA);
  data.targets[1] = 65;
  const auto out = linear_cross_entropy(data.x, data.weight, data.targets, 65);
  EXPECT_TRUE(std::isnan(out.loss_sum.item<float>()));
}

}  // namespace dense_cross_entropy_test
}  // namespace refract
