// Learned ranges: the quantizer's gradient by finite differences, and what it is good for.
#include "transforms/optical/straight_quantize.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/linear.h>
#include <ATen/ops/tensor.h>
#include <gtest/gtest.h>

#include <cmath>
#include <functional>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "support/errors.h"
#include "transforms/one_layer.h"
#include "transforms/optical/granular_product.h"

namespace refract::straight_quantize_test {

using nlohmann::json;
using testing::expect_same;
using testing::normal;
using testing::OneLayer;

at::Tensor numbers(const std::vector<double>& values) { return at::tensor(values, at::kDouble); }

// Of `loss` with one element of `of` moved.
double slope(const at::Tensor& of, int64_t element, double step,
             const std::function<double()>& loss) {
  const at::NoGradGuard no_grad;
  const at::Tensor place = of.view({-1})[element];
  place.add_(step);
  const double above = loss();
  place.sub_(2 * step);
  const double below = loss();
  place.add_(step);
  return (above - below) / (2 * step);
}

TEST(StraightQuantize, ItsValuesAreTheQuantizers) {
  const at::Tensor x = normal({3, 5, 8}).set_requires_grad(true), xi = normal({3, 5, 8}).mul(0.3);
  const at::Tensor rows = row_ranges(x.detach()).to(at::kDouble).mul(0.7);
  for (const at::Tensor& range : {rows, numbers({-0.9, 1.1})}) {
    const at::Tensor y = straight_quantize(x, range, 9, 0.02, xi);
    EXPECT_TRUE(y.requires_grad());
    EXPECT_TRUE(y.detach().equal(granular_quantize(x.detach(), range, 9, 0.02, xi)));
  }
}

// So many levels that rounding is nothing beside the step of the difference: what is left is what
// the range cuts off.
TEST(StraightQuantize, TheRangesGradientIsThatOfFiniteDifferences) {
  const at::Tensor x = normal({4, 200}).set_requires_grad(true), pull = normal({4, 200});
  for (at::Tensor range : {numbers({-0.8, 0.6}), numbers({-1, 1, -0.5, 0.7, -0.2, 0.2, -2, 0.1})}) {
    if (range.numel() > 2) range = range.view({4, 2}).clone();
    range.set_requires_grad(true);
    const auto loss = [&] {
      return straight_quantize(x.detach(), range.detach(), 1 << 26, 0).mul(pull).sum();
    };
    straight_quantize(x, range, 1 << 26, 0).mul(pull).sum().backward();
    for (int64_t i = 0; i < range.numel(); ++i) {
      const double expected = slope(range.detach(), i, 1e-4, [&] { return loss().item<double>(); });
      EXPECT_NEAR(range.grad().view({-1})[i].item<double>(), expected, 0.05) << i;
    }
    const at::Tensor lo = range.detach().select(-1, 0).unsqueeze(-1),
                     hi = range.detach().select(-1, 1).unsqueeze(-1);
    const at::Tensor inside = x.detach().ge(lo).logical_and(x.detach().le(hi));
    expect_same(x.grad(), pull.mul(inside));
    x.mutable_grad() = at::Tensor();
  }
}

// Three levels at -1, 0, 1: what rounding adds to 0.4 and -0.7 grows with the range.
TEST(StraightQuantize, RoundingCountsInLevels) {
  const at::Tensor x = numbers({0.4, -0.7}).view({1, 2});
  const at::Tensor range = numbers({-1, 1}).set_requires_grad(true);
  straight_quantize(x, range, 3, 0).mul(numbers({1, 10})).sum().backward();
  // c = (0 - 0.4) / 2 and (-1 + 0.7) / 2.
  const double c = -0.2 - 1.5;
  EXPECT_NEAR(range.grad()[0].item<double>(), -c, 1e-6);
  EXPECT_NEAR(range.grad()[1].item<double>(), c, 1e-6);
}

TEST(StraightQuantize, AFactorMovesTheEndsFromZero) {
  const at::Tensor factor = numbers({0.5, 2});
  expect_same(scaled_range(numbers({-4, 3}), factor), numbers({-2, 6}));
  expect_same(scaled_range(numbers({1, 3}), factor), numbers({1, 5}));
  expect_same(scaled_range(numbers({-3, -1}), factor), numbers({-2, -1}));
}

std::string learned(const json& more) {
  json table = {{"kind", "optical"}, {"noise", false}, {"q_lut_min", 0}, {"q_learn", true}};
  table.update(more);
  return table.dump();
}

// A layer's parameters have the gradients of the quantizers that it is made of, whose own are
// tested above.
TEST(StraightQuantize, ALayersRangesHaveTheGradientOfItsQuantizers) {
  const json fine = {{"q_x_per", "token"}, {"q_w_per", "channel"}, {"q_out_per", "token"}};
  for (json how : {json::object(), fine}) {
    how["q_levels"] = 32;
    OneLayer one(learned(how), 64, 48);
    const at::Tensor x = normal({20, 64}), pull = normal({20, 48});
    const std::vector<const char*> names = {"layer.x_clip", "layer.w_clip", "layer.out_clip"};
    std::vector<at::Tensor> logs;
    for (const char* name : names) {
      one.value(name).fill_(-0.4);
      logs.push_back(one.value(name).clone().set_requires_grad(true));
    }
    one.arena.grads().zero_();
    const at::Tensor y = one.forward(x);
    y.mul(pull).sum().backward();

    const auto range = [&](const at::Tensor& of, size_t which) {
      const at::Tensor seen = how.contains("q_x_per") ? row_ranges(of) : whole_range(of);
      return scaled_range(seen, logs[which].exp().view({-1, 2}).squeeze(0));
    };
    const at::Tensor weight = one.value("layer.weight").clone().set_requires_grad(true);
    const at::Tensor z = straight_quantize(x, range(x, 0), 32, 0)
                             .matmul(straight_quantize(weight, range(weight, 1), 32, 0).t());
    const at::Tensor expected = straight_quantize(z, range(z, 2), 32, 0);
    expect_same(y.detach(), expected.detach(), 1e-12);
    expected.mul(pull).sum().backward();
    for (size_t n = 0; n < names.size(); ++n) {
      EXPECT_GT(logs[n].grad().abs().max().item<double>(), 0.01) << names[n];
      expect_same(one.arena.gradient(one.arena.find(names[n])), logs[n].grad(), 1e-9);
    }
    expect_same(one.arena.gradient(one.arena.find("layer.weight")), weight.grad(), 1e-9);
  }
}

// 1 of 50 inputs is 20 times the others and multiplied by next to nothing: the range that is best
// cuts it off. Learned from the product's error.
TEST(StraightQuantize, LearnedRangesRepairWhatMinimumAndMaximumLose) {
  at::Tensor x = normal({128, 50});
  x.select(1, 7).mul_(20);
  const json medium = {{"q_levels", 16}};
  OneLayer one(learned(medium), 50, 16);
  one.value("layer.weight").select(1, 7).zero_();
  const at::Tensor dense = at::linear(x, one.value("layer.weight"));
  const auto error = [&] { return one.forward(x).sub(dense).norm().div(dense.norm()); };
  const double before = error().item<double>();
  for (int step = 0; step < 150; ++step) {
    one.arena.grads().zero_();
    error().backward();
    const at::NoGradGuard no_grad;
    for (const char* name : {"layer.x_clip", "layer.w_clip", "layer.out_clip"}) {
      const at::Tensor grad = one.arena.gradient(one.arena.find(name));
      one.value(name).sub_(grad.sign().mul(0.02));
    }
  }
  const double after = error().item<double>();
  EXPECT_LT(after, 0.5 * before) << before;
  EXPECT_LT(one.value("layer.x_clip").max().item<double>(), -1);
}

TEST(StraightQuantize, RefusesWhatTheReferenceHas) {
  const auto refused = [](const json& more) {
    return testing::error_of([&] { OneLayer(learned(more)); });
  };
  EXPECT_NE(refused({{"compat", "mase-finetune"}}).find("q_learn"), std::string::npos);
  EXPECT_NE(refused({{"q_quantiles", {0.1, 0.9}}}).find("q_learn"), std::string::npos);
}

}  // namespace refract::straight_quantize_test
