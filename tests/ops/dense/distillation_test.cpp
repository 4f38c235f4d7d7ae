// Samples for tests/parity/test_every_op.py:
// opcheck: linear_distillation(normal(6, 8), normal(11, 8), torch.randint(9, (6,)), plain(6, 5),
//   plain(10, 5), 9, 2.0, 0.5)
// opcheck: linear_distillation_forward(plain(6, 8), plain(11, 8), torch.randint(9, (6,)),
//   plain(6, 5), plain(10, 5), 9, 2.0, 0.5, True, True)
#include "ops/dense/loss/distillation.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/linear.h>
#include <ATen/ops/randint.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/zeros.h>
#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>

#include <cmath>

#include "ops/dense/loss/cross_entropy.h"
#include "support/cuda_guard.h"
#include "support/gradcheck.h"
#include "support/tolerances.h"

namespace refract {
namespace distillation_test {

using testing::expect_close;

struct Case {
  int64_t n, width, teacher_width, classes, padded;
  double temperature, mix;
};

// One row, one class, padding, several chunks; each end of the mixture and both sides of T = 1.
const Case kCases[] = {{1, 1, 1, 1, 1, 1, 0.5},
                       {3, 5, 7, 7, 7, 1, 1},
                       {5, 8, 3, 65, 128, 2, 0.5},
                       {300, 32, 16, 503, 512, 0.5, 0.9},
                       {40, 96, 96, 301, 304, 4, 0}};

struct Data {
  at::Tensor x, weight, targets, teacher_x, teacher_weight;
};

Data make(const Case& c, at::ScalarType dtype, at::DeviceType device = at::kCPU) {
  const auto normal = [&](int64_t rows, int64_t columns, double factor) {
    return (at::randn({rows, columns}, at::TensorOptions().dtype(at::kDouble)) * factor)
        .to(device, dtype);
  };
  Data data{normal(c.n, c.width, 1),
            normal(c.padded, c.width, 0.3),
            {},
            normal(c.n, c.teacher_width, 1),
            normal(c.padded, c.teacher_width, 0.5)};
  data.targets = at::randint(c.classes, {c.n}, at::TensorOptions().dtype(at::kLong));
  if (c.n > 2) data.targets[c.n / 2] = kIgnoredTarget;
  data.targets = data.targets.to(device);
  return data;
}

struct Result {
  at::Tensor loss, dx, dweight;
};

// Through autograd, with a gradient of 1/7 coming in.
Result run(const Data& d, const Case& c) {
  const at::Tensor x = d.x.detach().requires_grad_(true);
  const at::Tensor weight = d.weight.detach().requires_grad_(true);
  const at::Tensor loss = linear_distillation(x, weight, d.targets, d.teacher_x, d.teacher_weight,
                                              c.classes, c.temperature, c.mix);
  const auto grads = torch::autograd::grad({loss / 7.0}, {x, weight});
  return {loss.detach(), grads[0], grads[1]};
}

// The definition, token by token from whole logits in float64.
Result reference(const Data& d, const Case& c) {
  const at::Tensor x = d.x.to(at::kDouble).detach().requires_grad_(true);
  const at::Tensor weight = d.weight.to(at::kDouble).detach().requires_grad_(true);
  const at::Tensor logits = at::linear(x, weight.narrow(0, 0, c.classes));
  const at::Tensor teacher = at::linear(d.teacher_x.to(at::kDouble),
                                        d.teacher_weight.to(at::kDouble).narrow(0, 0, c.classes));
  at::Tensor loss = at::zeros({}, logits.options());
  for (int64_t i = 0; i < c.n; ++i) {
    const auto target = d.targets[i].item<int64_t>();
    if (target == kIgnoredTarget) continue;
    const at::Tensor p = logits[i].softmax(0), soft = (logits[i] / c.temperature).softmax(0),
                     q = (teacher[i] / c.temperature).softmax(0);
    loss = loss - (1 - c.mix) * p[target].log() +
           c.mix * c.temperature * c.temperature * (q * (q.log() - soft.log())).sum();
  }
  const auto grads = torch::autograd::grad({loss / 7.0}, {x, weight});
  return {loss.detach(), grads[0], grads[1]};
}

std::string name(const Case& c, at::ScalarType dtype) {
  return "N=" + std::to_string(c.n) + " V=" + std::to_string(c.classes) +
         " T=" + std::to_string(c.temperature) + " w=" + std::to_string(c.mix) + " " +
         c10::toString(dtype);
}

// Sums over hundreds of rows carry a few more units than the table's one operation; the divergence
// is a difference of logarithms.
void expect_definition(at::DeviceType device) {
  for (const Case& c : kCases) {
    for (const auto dtype : {at::kDouble, at::kFloat, at::kBFloat16}) {
      const Data data = make(c, dtype, device);
      const Result actual = run(data, c), expected = reference(data, c);
      const bool half = dtype == at::kBFloat16;
      expect_close(actual.loss, expected.loss.to(dtype == at::kDouble ? at::kDouble : at::kFloat),
                   name(c, dtype) + " loss", half ? 1000 : 10);
      expect_close(actual.dx, expected.dx.to(dtype), name(c, dtype) + " dx", half ? 3 : 10);
      expect_close(actual.dweight, expected.dweight.to(dtype), name(c, dtype) + " dweight",
                   half ? 3 : 10);
      const at::Tensor padding = actual.dweight.narrow(0, c.classes, c.padded - c.classes);
      EXPECT_TRUE(at::equal(padding, at::zeros_like(padding)));
    }
  }
}

TEST(Distillation, MatchesTheDefinition) { expect_definition(at::kCPU); }

TEST(Distillation, CudaMatchesTheDefinition) {
  REFRACT_CUDA_OR_SKIP();
  expect_definition(at::kCUDA);
}

TEST(Distillation, GradientIsThatOfTheLoss) {
  for (const Case& c : {Case{4, 3, 2, 5, 5, 1, 0.3}, Case{5, 7, 4, 9, 12, 2.5, 0.8}}) {
    Data d = make(c, at::kDouble);
    testing::expect_gradients(
        [&](const testing::Tensors& in) -> testing::Tensors {
          return {linear_distillation(in[0], in[1], d.targets, d.teacher_x, d.teacher_weight,
                                      c.classes, c.temperature, c.mix)};
        },
        {d.x, d.weight}, name(c, at::kDouble));
  }
}

// Without the teacher's share it is the cross-entropy; a teacher that the student equals adds
// nothing and pulls nowhere.
TEST(Distillation, MeetsTheCrossEntropy) {
  const Case c{30, 16, 16, 101, 104, 2, 0};
  Data d = make(c, at::kDouble);
  const at::Tensor plain = linear_cross_entropy(d.x, d.weight, d.targets, c.classes).loss_sum;
  expect_close(run(d, c).loss, plain, "w = 0");
  d.teacher_x = d.x;
  d.teacher_weight = d.weight;
  const Result same = run(d, {30, 16, 16, 101, 104, 2, 1});
  EXPECT_NEAR(same.loss.item<double>(), 0, 1e-12);
  EXPECT_LT(same.dx.abs().max().item<double>(), 1e-14);
  expect_close(run(d, {30, 16, 16, 101, 104, 2, 0.25}).loss, plain.mul(0.75), "w = 1/4");
}

TEST(Distillation, ChunksAgree) {
  const Case& c = kCases[3];
  const Data d = make(c, at::kFloat);
  const auto of = [&](int64_t rows) {
    return linear_distillation_forward(d.x, d.weight, d.targets, d.teacher_x, d.teacher_weight,
                                       c.classes, c.temperature, c.mix, true, true, rows);
  };
  const auto [loss, dx, dw] = of(1024);
  const auto [loss2, dx2, dw2] = of(7);
  expect_close(loss2, loss, "loss", 4);
  expect_close(dx2, dx, "dx", 4);
  expect_close(dw2, dw, "dweight", 4);
}

TEST(Distillation, IgnoredAndBadTargets) {
  const Case& c = kCases[1];
  Data d = make(c, at::kFloat);
  d.targets.fill_(kIgnoredTarget);
  const Result ignored = run(d, c);
  EXPECT_EQ(ignored.loss.item<float>(), 0.0F);
  EXPECT_EQ(ignored.dx.abs().sum().item<float>(), 0.0F);
  d.targets[0] = c.classes;
  EXPECT_TRUE(std::isnan(run(d, c).loss.item<float>()));
  EXPECT_THROW(linear_distillation(d.x, d.weight, d.targets, d.teacher_x.narrow(0, 0, 1),
                                   d.teacher_weight, c.classes, 1, 1),
               c10::Error);
  EXPECT_THROW(
      linear_distillation(d.x, d.weight, d.targets, d.teacher_x, d.teacher_weight, c.classes, 0, 1),
      c10::Error);
}

}  // namespace distillation_test
}  // namespace refract
