// Conditioning: exact in dense arithmetic, and each method repairs what it is for.
#include <ATen/TensorOperators.h>
#include <ATen/ops/linear.h>
#include <ATen/ops/zeros.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "core/error.h"
#include "model/dense.h"
#include "support/errors.h"
#include "transforms/media/hadamard.h"
#include "transforms/media/observer.h"
#include "transforms/one_layer.h"

namespace refract {
namespace conditioned_test {

using nlohmann::json;
using testing::expect_same;
using testing::normal;
using testing::OneLayer;

const char* const kMethods[] = {"smooth", "hadamard", "split", "per_token", "per_channel"};

std::string conditioned(json parameters) {
  parameters["kind"] = "conditioned";
  return parameters.dump();
}

double error_of(OneLayer& one, const at::Tensor& x) {
  const at::Tensor dense = at::linear(x, one.value("layer.weight"));
  return ((one.forward(x) - dense).norm() / dense.norm()).item<double>();
}

TEST(ConditionedTest, EveryMethodIsExactInDenseArithmetic) {
  const at::Tensor x = normal({2, 5, 12});
  for (const char* method : kMethods) {
    OneLayer one(conditioned({{"method", method}}));
    expect_same(one.forward(x), at::linear(x, one.value("layer.weight")), 1e-12);
  }
  OneLayer turned(conditioned({{"method", "hadamard"}, {"turn_outputs", true}}));
  expect_same(turned.forward(x), at::linear(x, turned.value("layer.weight")), 1e-12);
  const json inner = {{"kind", "conditioned"}, {"method", "smooth"}};
  OneLayer two(conditioned({{"method", "hadamard"}, {"over", inner}}));
  expect_same(two.forward(x), at::linear(x, two.value("layer.weight")), 1e-12);
}

// One channel of the input is 300 times the others, and the weight is small there, so that it
// counts no more than they do: one range for all leaves them 16 / 300 of a level.
TEST(ConditionedTest, EachMethodRepairsAPlantedOutlierChannel) {
  at::Tensor x = normal({64, 128});
  x.select(1, 7).mul_(300);
  const auto error = [&](const std::string& table) {
    OneLayer one(table, 128, 32);
    one.value("layer.weight").select(1, 7).div_(300);
    return error_of(one, x);
  };
  const json medium = {{"kind", "optical"}, {"noise", false}, {"q_lut_min", 0}};
  const double plain = error(medium.dump());
  EXPECT_GT(plain, 0.3);
  for (const char* method : {"smooth", "split"}) {
    EXPECT_LT(error(conditioned({{"method", method}, {"over", medium}})), 0.05) << method;
  }
  // Rotation spreads it: every channel then shares its size, 300 / sqrt(128) of the others'.
  EXPECT_LT(error(conditioned({{"method", "hadamard"}, {"over", medium}})), 0.7 * plain);
}

// One output of 512 is 20 times the others: a token's range has to hold it, and only turning the
// outputs spreads it.
TEST(ConditionedTest, TurningTheOutputsRepairsAPlantedOutput) {
  const at::Tensor x = normal({64, 128});
  const auto error_of_the_others = [&](bool turn_outputs) {
    const json medium = {{"kind", "optical"},   {"noise", false},     {"q_lut_min", 0},
                         {"q_levels", 64},      {"q_x_per", "token"}, {"q_w_per", "channel"},
                         {"q_out_per", "token"}};
    OneLayer one(
        conditioned({{"method", "hadamard"}, {"turn_outputs", turn_outputs}, {"over", medium}}),
        128, 512);
    one.value("layer.weight").select(0, 0).mul_(20);
    const at::Tensor dense = at::linear(x, one.value("layer.weight")).narrow(1, 1, 511);
    return ((one.forward(x).narrow(1, 1, 511) - dense).norm() / dense.norm()).item<double>();
  };
  const double inputs = error_of_the_others(false), both = error_of_the_others(true);
  EXPECT_LT(both, 0.6 * inputs);
}

// One token is 300 times the others.
TEST(ConditionedTest, PerTokenRepairsAPlantedTokenAndPerChannelARow) {
  at::Tensor x = normal({64, 32});
  x.select(0, 3).mul_(300);
  const json medium = {{"kind", "optical"}, {"noise", false}, {"q_lut_min", 0}};
  const auto small_rows = [&](const std::string& table) {
    OneLayer one(table, 32, 16);
    const at::Tensor dense = at::linear(x, one.value("layer.weight")).narrow(0, 4, 60);
    return ((one.forward(x).narrow(0, 4, 60) - dense).norm() / dense.norm()).item<double>();
  };
  EXPECT_GT(small_rows(medium.dump()), 0.5);
  EXPECT_LT(small_rows(conditioned({{"method", "per_token"}, {"over", medium}})), 0.05);
  const at::Tensor even = normal({64, 32});
  const auto other_columns = [&](const std::string& table) {
    OneLayer one(table, 32, 16);
    one.value("layer.weight").select(0, 2).mul_(300);
    const at::Tensor dense = at::linear(even, one.value("layer.weight")).narrow(1, 3, 13);
    return ((one.forward(even).narrow(1, 3, 13) - dense).norm() / dense.norm()).item<double>();
  };
  EXPECT_GT(other_columns(medium.dump()), 0.5);
  EXPECT_LT(other_columns(conditioned({{"method", "per_channel"}, {"over", medium}})), 0.05);
}

TEST(ConditionedTest, TheGradientIsTheDenseLayers) {
  std::vector<json> all = {{{"method", "hadamard"}, {"turn_outputs", true}}};
  for (const char* method : kMethods) all.push_back({{"method", method}});
  for (json& parameters : all) {
    parameters["over"] = "optical";
    OneLayer one(conditioned(parameters));
    at::Tensor x = normal({3, 5, 12}).set_requires_grad(true);
    const at::Tensor pull = normal({3, 5, 16});
    one.arena.grads().zero_();
    one.forward(x).mul(pull).sum().backward();
    expect_same(x.grad(), pull.matmul(one.value("layer.weight")), 1e-9);
    expect_same(one.arena.gradient(one.arena.find("layer.weight")),
                pull.flatten(0, 1).t().matmul(x.detach().flatten(0, 1)), 1e-9);
  }
}

TEST(ConditionedTest, TheRotationIsOrthogonalForAnyWidth) {
  for (const int64_t width : {1, 2, 3, 12, 64, 96, 576, 1536}) {
    const Hadamard turn(width, 3, "the test");
    const at::Tensor x = normal({4, width});
    expect_same(turn.invert(turn.apply(x)), x, 1e-11);
    expect_same(turn.apply(x).norm(), x.norm(), 1e-10);
  }
  // One large channel is spread over all.
  at::Tensor one = at::zeros({1, 1536}, at::kDouble);
  one[0][5] = 1;
  EXPECT_LT(Hadamard(1536, 3, "the test").apply(one).abs().max().item<double>(), 0.06);
}

TEST(ConditionedTest, AttentionIsExactInDenseArithmetic) {
  const AttentionSpec spec{"model.layers.0.self_attn", 0, 4, 2, 8, 0.35, 0.0};
  ParameterArena arena;
  BufferStore buffers;
  std::vector<TransformedLayer> transformed;
  const auto core = make_kind(conditioned({{"method", "hadamard"}}), "the test")
                        ->attention({arena, buffers, transformed}, spec);
  const at::Tensor q = normal({2, 6, 4, 8}), k = normal({2, 6, 2, 8}), v = normal({2, 6, 2, 8});
  expect_same(core->forward({}, q, k, v), SdpaAttention(spec).forward({}, q, k, v), 1e-12);
}

// Sets what smooth and split keep, as calibration does.
struct Maxima : MediumObserver {
  at::Tensor see(const Observation& seen) override { return seen.values; }
  void see_channels(const std::string&, const at::Tensor& values, const at::Tensor& kept) override {
    kept.copy_(values.abs().reshape({-1, values.size(-1)}).amax(0));
  }
};

TEST(ConditionedTest, AKeptMaximumMakesATokensResultItsOwn) {
  OneLayer one(conditioned(
      {{"method", "smooth"},
       {"over",
        {{"kind", "optical"}, {"q_x_per", "token"}, {"q_out_per", "token"}, {"noise", false}}}}));
  const at::Tensor x = normal({6, 12});
  {
    Maxima maxima;
    const ObserverScope scope(maxima);
    one.forward(x);
  }
  const at::Tensor together = one.forward(x);
  expect_same(one.forward(x.narrow(0, 0, 1)), together.narrow(0, 0, 1), 1e-6);
}

TEST(ConditionedTest, RefusesAMediumThatTakesNoWeight) {
  const std::string error = testing::error_of([] {
    OneLayer(conditioned({{"over", {{"kind", "low_rank"}, {"rank", 2}}}}));
  });
  for (const char* name : {"bit_flip", "integer", "minifloat", "mx", "optical", "spiking"})
    EXPECT_NE(error.find(name), std::string::npos) << error;
  EXPECT_THROW(OneLayer(conditioned({{"method", "smoothe"}})), Error);
}

}  // namespace conditioned_test
}  // namespace refract
