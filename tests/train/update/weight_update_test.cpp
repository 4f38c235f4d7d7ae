#include "train/update/weight_update.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>
#include <gtest/gtest.h>

#include <stdexcept>
#include <vector>

#include "support/tolerances.h"

namespace refract {
namespace weight_update_test {

using testing::expect_close;

ParameterSpec table(const char* name, std::vector<int64_t> shape) {
  ParameterSpec spec{name, std::move(shape), Init::normal(1)};
  spec.table = true;
  return spec;
}

void fill(ParameterArena& arena) {
  arena.declare(table("embed", {10, 6}), /*pad_rows_to=*/16);
  for (const char* name : {"q", "k"}) arena.declare({name, {6, 6}, Init::normal(1)});
  arena.declare({"blocks", {3, 2, 4}, Init::normal(1)});
  arena.declare({"frozen", {6, 6}, Init::normal(1), /*trainable=*/false});
  arena.declare({"bias", {6}, Init::normal(1)});
  arena.declare(table("head", {10, 6}));
  arena.declare({"down", {6, 2}, Init::normal(1)});
  arena.allocate(at::kCPU, at::kFloat, at::kFloat);
  arena.initialize(1);
}

TEST(HiddenMatrices, AreThoseThatAreNoTables) {
  ParameterArena arena;
  fill(arena);
  const std::vector<MatrixStack> stacks = hidden_matrices(arena, {0, arena.core_size()});
  int64_t values = 0;
  for (const MatrixStack& stack : stacks) values += stack.range().size();
  EXPECT_EQ(values, 2 * 36 + 24 + 12);
  EXPECT_EQ(stacks.front().begin, arena.find("q")->offset);
  const auto is = [&](const char* name, int64_t rows, int64_t columns, int64_t count) {
    const int64_t offset = arena.find(name)->offset;
    for (const MatrixStack& stack : stacks) {
      if (stack.begin <= offset && offset < stack.range().end)
        return stack.rows == rows && stack.columns == columns && stack.count >= count;
    }
    return false;
  };
  EXPECT_TRUE(is("q", 6, 6, 1) && is("k", 6, 6, 1) && is("blocks", 2, 4, 3) && is("down", 6, 2, 1));
  EXPECT_FALSE(is("embed", 16, 6, 1) || is("head", 10, 6, 1));
  EXPECT_THROW(hidden_matrices(arena, {0, arena.find("q")->offset + 5}), std::logic_error);
}

// Everything else moves as with AdamW, and the matrices by another step of about the same size.
TEST(UpdateWeights, MuonLeavesTheRestToAdamW) {
  RunConfig::Optimizer adamw, muon;
  muon.name = "muon";
  ParameterArena by_adamw, by_muon;
  fill(by_adamw);
  fill(by_muon);
  const at::Tensor start = by_adamw.master().clone();
  const int64_t n = by_adamw.core_size();
  const at::Tensor grads = at::zeros({n});  // padding has none
  for (const Parameter& p : by_adamw.parameters()) {
    if (p.trainable) grads.narrow(0, p.offset, p.numel()).normal_();
  }
  const auto move = [&](ParameterArena& arena, const RunConfig::Optimizer& optimizer) {
    UpdateInputs in{{0, n}, 0, grads.clone(), {at::zeros({n}), at::zeros({n})}, {}, {}};
    in.hyper = at::tensor({0.01, 0.1, 0.05, 0.0}).to(at::kFloat);
    in.control = at::tensor({1.0, 0.0, 0.0, 0.0}).to(at::kFloat);
    update_weights(arena, optimizer, in);
    EXPECT_EQ(in.grads.abs().max().item<float>(), 0.0f);
    return in.state;
  };
  move(by_adamw, adamw);
  const OptimizerState state = move(by_muon, muon);
  for (const Parameter& p : by_muon.parameters()) {
    const at::Tensor a = by_adamw.value(by_adamw.find(p.name)), b = by_muon.value(&p);
    if (p.table || p.shape.size() == 1 || !p.trainable) {
      EXPECT_TRUE(at::equal(a, b)) << p.name;
      continue;
    }
    EXPECT_FALSE(at::equal(a, b)) << p.name;
    const double step = b.sub(start.narrow(0, p.offset, p.numel()).view(p.shape))
                            .pow(2)
                            .mean()
                            .sqrt()
                            .item<double>();
    EXPECT_GT(step, 0.0005) << p.name;
    EXPECT_LT(step, 0.005) << p.name;  // 0.2 of the rate, and the decay
    EXPECT_EQ(state.exp_avg_sq.narrow(0, p.offset, p.numel()).abs().max().item<float>(), 0.0f);
  }
}

// Kernels want pieces that begin at multiples of 8 elements, and padding needs no step.
TEST(UpdateWeights, OddMatricesLeaveAlignedGaps) {
  ParameterArena arena;
  arena.declare({"q", {9, 9}, Init::normal(1)});
  arena.declare(table("embed", {10, 9}));
  arena.declare({"o", {9, 9}, Init::normal(1)});
  arena.declare({"bias", {9}, Init::normal(1)});
  arena.allocate(at::kCPU, at::kFloat, at::kFloat);
  arena.initialize(1);
  const at::Tensor before = arena.master().clone();
  const int64_t n = arena.core_size();
  RunConfig::Optimizer muon;
  muon.name = "muon";
  UpdateInputs in{{0, n}, 0, at::randn({n}), {at::zeros({n}), at::zeros({n})}, {}, {}};
  at::Tensor padding = at::ones({n});
  for (const Parameter& p : arena.parameters()) {
    EXPECT_EQ(p.offset % 64, 0) << p.name;
    padding.narrow(0, p.offset, p.numel()).zero_();
  }
  in.grads.mul_(1 - padding);
  in.hyper = at::tensor({0.01, 0.1, 0.05, 0.0}).to(at::kFloat);
  in.control = at::tensor({1.0, 0.0, 0.0, 0.0}).to(at::kFloat);
  update_weights(arena, muon, in);
  for (const Parameter& p : arena.parameters()) {
    const at::Tensor change = (arena.master() - before).narrow(0, p.offset, p.numel());
    EXPECT_TRUE(change.ne(0).all().item<bool>()) << p.name;
  }
  EXPECT_EQ((arena.master() * padding).abs().max().item<float>(), 0.0f);
  EXPECT_EQ(in.grads.abs().max().item<float>(), 0.0f);
}

}  // namespace weight_update_test
}  // namespace refract
