// Learned rotations: orthogonal, with the gradient of finite differences, and better than a fixed
// one where that fails.
#include "transforms/media/learned_turn.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/eye.h>
#include <ATen/ops/full.h>
#include <ATen/ops/linear.h>
#include <ATen/ops/zeros.h>
#include <ATen/ops/zeros_like.h>
#include <gtest/gtest.h>

#include <cmath>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "model/dense.h"
#include "support/errors.h"
#include "transforms/media/hadamard.h"
#include "transforms/one_layer.h"

namespace refract::learned_turn_test {

using nlohmann::json;
using testing::expect_same;
using testing::normal;
using testing::OneLayer;

std::string turned(const json& medium, const json& more = json::object()) {
  json table = {
      {"kind", "conditioned"}, {"method", "hadamard"}, {"learned", true}, {"over", medium}};
  table.update(more);
  return table.dump();
}

json optical(const json& more = json::object()) {
  json table = {{"kind", "optical"}, {"noise", false}, {"q_lut_min", 0}, {"gradient", "operands"}};
  table.update(more);
  return table;
}

TEST(LearnedTurn, CayleysMatricesAreOrthogonal) {
  for (const int64_t block : {1, 2, 7, 64}) {
    const at::Tensor above = normal({3, block * (block - 1) / 2}).mul(2);
    const at::Tensor matrices = cayley(above, block);
    const at::Tensor one = at::eye(block, above.options()).expand({3, block, block});
    expect_same(matrices.matmul(matrices.transpose(1, 2)), one, 1e-11);
    expect_same(cayley(at::zeros_like(above), block), one, 1e-15);
    const at::Tensor x = normal({4, 5, 3 * block});
    expect_same(LearnedTurn::invert(LearnedTurn::apply(x, matrices), matrices), x, 1e-11);
  }
  // Of two channels and the number p it turns by 2 atan p.
  const at::Tensor one = cayley(at::full({1, 1}, 0.5, at::kDouble), 2)[0];
  EXPECT_NEAR(one[0][0].item<double>(), 0.6, 1e-12);
  EXPECT_NEAR(std::abs(one[0][1].item<double>()), 0.8, 1e-12);
}

TEST(LearnedTurn, TheGradientIsThatOfFiniteDifferences) {
  at::Tensor above = normal({2, 6}).mul(0.5).set_requires_grad(true);
  const at::Tensor x = normal({5, 8}), pull = normal({5, 8});
  const auto loss = [&](const at::Tensor& of) {
    return LearnedTurn::apply(x, cayley(of, 4)).tanh().mul(pull).sum();
  };
  loss(above).backward();
  constexpr double kStep = 1e-5;
  for (int64_t i = 0; i < 12; ++i) {
    const at::Tensor moved = above.detach().clone();
    moved.view({-1})[i].add_(kStep);
    const double up = loss(moved).item<double>();
    moved.view({-1})[i].sub_(2 * kStep);
    EXPECT_NEAR(above.grad().view({-1})[i].item<double>(),
                (up - loss(moved).item<double>()) / (2 * kStep), 1e-7);
  }
}

TEST(LearnedTurn, AnyRotationIsExactInDenseArithmetic) {
  const at::Tensor x = normal({2, 5, 12});
  for (const int64_t block : {0, 1, 4}) {
    OneLayer one(turned(optical({{"q_bypass", true}}), {{"turn_outputs", true}, {"block", block}}));
    one.value("layer.turn").copy_(normal(one.value("layer.turn").sizes()));
    one.value("layer.turn_outputs").copy_(normal(one.value("layer.turn_outputs").sizes()));
    expect_same(one.forward(x), at::linear(x, one.value("layer.weight")), 1e-12);
    expect_same(one.layer->merged(), one.value("layer.weight"), 1e-15);
  }
}

TEST(LearnedTurn, AttentionIsExactInDenseArithmetic) {
  const AttentionSpec spec{"model.layers.0.self_attn", 0, 4, 2, 8, 0.35, 0.0};
  ParameterArena arena;
  BufferStore buffers;
  std::vector<TransformedLayer> transformed;
  const auto core = make_kind(turned(optical({{"q_bypass", true}})), "the test")
                        ->attention({arena, buffers, transformed}, spec);
  arena.allocate(at::kCPU, at::kDouble, at::kDouble);
  const at::Tensor turn = arena.value(arena.find("model.layers.0.self_attn.turn"));
  ASSERT_EQ(turn.numel(), 28);
  turn.copy_(normal({28}));
  const at::Tensor q = normal({2, 6, 4, 8}), k = normal({2, 6, 2, 8}), v = normal({2, 6, 2, 8});
  expect_same(core->forward({}, q, k, v), SdpaAttention(spec).forward({}, q, k, v), 1e-12);
}

// A direction of the input that the fixed rotation turns into a single channel is 100 times the
// others, and the weight is small there.
TEST(LearnedTurn, RepairsAnOutlierThatTheFixedRotationMakes) {
  constexpr int64_t kWidth = 64;
  at::Tensor channel = at::zeros({1, kWidth}, at::kDouble);
  channel[0][9] = 1;
  const at::Tensor direction = Hadamard(kWidth, 0, "hadamard:layer").invert(channel);
  at::Tensor x = normal({128, kWidth});
  x = x.add(x.matmul(direction.t()).mul(99).matmul(direction));
  OneLayer one(turned(optical(), {{"block", 0}}), kWidth, 32);
  const at::Tensor weight = one.value("layer.weight");
  weight.sub_(weight.matmul(direction.t()).mul(0.99).matmul(direction));
  const at::Tensor dense = at::linear(x, weight);
  const auto error = [&] { return one.forward(x).sub(dense).norm().div(dense.norm()); };
  const double fixed = error().item<double>();
  const at::Tensor turn = one.value("layer.turn");
  at::Tensor mean = at::zeros_like(turn), square = at::zeros_like(turn);
  for (int step = 1; step <= 150; ++step) {  // Adam
    one.arena.grads().zero_();
    error().backward();
    const at::NoGradGuard no_grad;
    const at::Tensor grad = one.arena.gradient(one.arena.find("layer.turn"));
    mean = mean.mul(0.9).add(grad.mul(0.1));
    square = square.mul(0.99).add(grad.square().mul(0.01));
    const at::Tensor size = square.div(1 - std::pow(0.99, step)).sqrt().add(1e-12);
    turn.sub_(mean.div(1 - std::pow(0.9, step)).div(size).mul(0.02));
  }
  EXPECT_GT(turn.abs().max().item<double>(), 0.01);
  EXPECT_LT(error().item<double>(), 0.6 * fixed) << fixed;
  expect_same(at::linear(x, one.layer->merged()), dense, 1e-9);
}

TEST(LearnedTurn, RefusesAMediumThatGivesItNoGradient) {
  const auto refused = [](const std::string& table) {
    return testing::error_of([&] { OneLayer{table}; });
  };
  EXPECT_NE(refused(turned("optical")).find("gradient = \"operands\""), std::string::npos);
  EXPECT_NE(refused(turned("integer")).find("gradient"), std::string::npos);
  EXPECT_NE(refused(turned(optical(), {{"method", "smooth"}})).find("learned"), std::string::npos);
  EXPECT_NE(refused(turned(optical(), {{"block", 5}})).find("4 does"), std::string::npos);
}

}  // namespace refract::learned_turn_test
