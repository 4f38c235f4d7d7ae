// The optical kind: groups, ranges as buffers, when weights are quantized, bypass, noise, settings.
#include <ATen/TensorOperators.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/linear.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/tensor.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "core/error.h"
#include "model/dense.h"
#include "transforms/kind.h"

namespace refract {
namespace optical_test {

using nlohmann::json;

std::unique_ptr<Kind> optical(json parameters = json::object()) {
  parameters["kind"] = "optical";
  return make_kind(parameters.dump(), "the test");
}

ProjectionSpec qkv(bool bias = true) {
  return {{{"q_proj", 16, 24, bias}, {"k_proj", 16, 8, bias}, {"v_proj", 16, 8, bias}}};
}

// A group of the kind, allocated in fp32 and drawn.
struct OneGroup {
  explicit OneGroup(const Kind& kind, const ProjectionSpec& spec = qkv()) {
    group = kind.projections(build(), spec);
    allocate();
  }
  // Its members one by one.
  OneGroup(const Kind& kind, const ProjectionSpec& spec, bool /*composed*/) {
    std::vector<std::unique_ptr<LinearLayer>> layers;
    for (const LinearSpec& member : spec.members) layers.push_back(kind.linear(build(), member));
    group = std::make_unique<ComposedProjections>(build(), spec, std::move(layers));
    allocate();
  }
  Build build() { return {arena, buffers, transformed}; }
  void allocate() {
    arena.allocate(at::kCPU, at::kFloat, at::kFloat);
    arena.initialize(1);
    for (const Parameter& parameter : arena.parameters()) {
      if (parameter.shape.size() == 1) arena.value(&parameter).fill_(0.25);
    }
  }
  at::Tensor forward(const at::Tensor& x, int64_t step, bool weights_changed = true) {
    ForwardContext context;
    context.training = step >= 0;
    context.clock = at::tensor({step, int64_t{0}}, at::kLong);
    context.weights_changed = weights_changed;
    return group->forward(context, x);
  }
  at::Tensor range(const std::string& name) { return buffers.find(name)->tensor; }

  ParameterArena arena;
  BufferStore buffers;
  std::vector<TransformedLayer> transformed;
  std::unique_ptr<Projections> group;
};

at::Tensor inputs() { return at::randn({4, 6, 16}); }

TEST(OpticalKindTest, AGroupIsItsMembersSideBySide) {
  const auto kind = optical();
  OneGroup whole(*kind), parts(*kind, qkv(), true);
  ASSERT_EQ(whole.transformed.size(), 3u);
  for (int64_t step = 0; step < 3; ++step) {
    const at::Tensor x = inputs();
    const at::Tensor a = whole.forward(x, step), b = parts.forward(x, step);
    // The same levels, but for sums in another order near the middle of two.
    EXPECT_LT((a - b).abs().gt(1e-5).to(at::kDouble).mean().item<double>(), 0.005);
    for (const char* name : {"q_proj.x_range", "k_proj.w_range", "v_proj.out_range"}) {
      EXPECT_LT((whole.range(name) - parts.range(name)).abs().max().item<double>(), 1e-5) << name;
    }
  }
}

TEST(OpticalKindTest, RangesMoveInTrainingOnly) {
  OneGroup one(*optical());
  const at::Tensor x = inputs();
  one.forward(x, kEvaluationStep);
  for (auto& buffer : one.buffers.all()) EXPECT_GT(buffer.tensor[0].item<float>(), 1e30f);
  one.forward(x, 0);
  EXPECT_TRUE(at::equal(one.range("q_proj.x_range"), at::stack({x.min(), x.max()})));
  std::vector<at::Tensor> kept;
  for (auto& buffer : one.buffers.all()) kept.push_back(buffer.tensor.clone());
  one.forward(x.mul(2), kEvaluationStep);
  for (size_t i = 0; i < kept.size(); ++i) {
    EXPECT_TRUE(at::equal(one.buffers.all()[i].tensor, kept[i])) << one.buffers.all()[i].name;
  }
  one.forward(x.mul(2), 1);
  const at::Tensor expected = kept[0].mul(0.9f) + at::stack({x.min(), x.max()}).mul(2).mul(0.1f);
  EXPECT_LT((one.range("q_proj.x_range") - expected).abs().max().item<double>(), 1e-5);
}

TEST(OpticalKindTest, TheWeightIsQuantizedOncePerStep) {
  OneGroup one(*optical({{"noise", false}}));
  const at::Tensor x = inputs();
  one.forward(x, 0);
  const at::Tensor range = one.range("q_proj.w_range").clone();
  at::Tensor weight = one.arena.value(one.arena.find("q_proj.weight"));
  const at::Tensor before = one.forward(x, kEvaluationStep);
  weight.mul_(3);
  EXPECT_TRUE(at::equal(one.forward(x, kEvaluationStep, false), before)) << "what was made is used";
  EXPECT_FALSE(at::equal(one.forward(x, kEvaluationStep, true), before));
  EXPECT_TRUE(at::equal(one.range("q_proj.w_range"), range));
  one.forward(x, 1, true);
  const at::Tensor moved = one.range("q_proj.w_range").clone();
  EXPECT_FALSE(at::equal(moved, range));
  one.forward(x, 1, false);
  EXPECT_TRUE(at::equal(one.range("q_proj.w_range"), moved))
      << "a second micro-batch moves nothing";
}

TEST(OpticalKindTest, BypassIsTheDenseLayer) {
  OneGroup one(*optical({{"q_bypass", true}}));
  ParameterArena arena;
  BufferStore buffers;
  std::vector<TransformedLayer> transformed;
  DenseProjections dense({arena, buffers, transformed}, qkv());
  arena.allocate(at::kCPU, at::kFloat, at::kFloat);
  arena.master().copy_(one.arena.master());
  const at::Tensor x = inputs();
  EXPECT_TRUE(at::equal(one.forward(x, 0), dense.forward({}, x)));
  EXPECT_GT(one.range("q_proj.x_range")[0].item<float>(), 1e30f) << "nothing was learned";
}

TEST(OpticalKindTest, NoiseFollowsStepLayerAndSeed) {
  const at::Tensor x = inputs();
  auto outputs = [&](json parameters, int64_t step) {
    OneGroup one(*optical(std::move(parameters)));
    one.forward(x, 0);
    return one.forward(x, step);
  };
  const at::Tensor base = outputs(json::object(), 1);
  EXPECT_TRUE(at::equal(base, outputs(json::object(), 1)));
  EXPECT_FALSE(at::equal(base, outputs(json::object(), 2)));
  EXPECT_FALSE(at::equal(base, outputs({{"q_init_seed", 1}}, 1)));
  EXPECT_TRUE(at::equal(outputs({{"noise", false}}, 1), outputs({{"noise", false}}, 2)));
}

// Of linear layers: the shared number in both of the reference's programs, clipped ranges in one.
TEST(OpticalKindTest, CompatIsOneProgramsSwitches) {
  const at::Tensor x = inputs();
  auto outputs = [&](json parameters) {
    OneGroup one(*optical(std::move(parameters)));
    at::Tensor y;
    for (int64_t step = 0; step < 4; ++step) y = one.forward(x.mul(1 + step), step);
    return std::pair(y, one.range("q_proj.out_range").clone());
  };
  const auto all = outputs({{"compat", "mase-pretrain"}});
  const auto both = outputs({{"compat_shared_noise", true}, {"compat_clipped_range", true}});
  EXPECT_TRUE(at::equal(all.first, both.first));
  EXPECT_TRUE(at::equal(all.second, both.second));
  const auto shared = outputs({{"compat_shared_noise", true}});
  EXPECT_FALSE(at::equal(all.second, shared.second));
  const auto fine_tuned = outputs({{"compat", "mase-finetune"}});
  EXPECT_TRUE(at::equal(fine_tuned.first, shared.first));
  EXPECT_TRUE(at::equal(fine_tuned.second, shared.second));
  EXPECT_TRUE(at::equal(shared.second, outputs(json::object()).second));
  EXPECT_FALSE(at::equal(shared.first, outputs(json::object()).first));
}

TEST(OpticalKindTest, RefusesParametersThatContradictThemselves) {
  EXPECT_THROW(optical({{"q_levels", 1}}), Error);
  EXPECT_THROW(optical({{"q_quantiles", {0.9, 0.1}}}), Error);
  EXPECT_THROW(optical({{"q_quantiles", {0.5}}}), Error);
  EXPECT_THROW(optical({{"compat", "maze"}}), Error);
  EXPECT_THROW(optical({{"compat", "mase-pretrain"}, {"noise", false}}), Error);
  EXPECT_THROW(optical({{"compat", "mase-finetune"}, {"noise", false}}), Error);
  EXPECT_NO_THROW(optical({{"q_quantiles", {0.001, 0.999}}}));
}

TEST(OpticalKindTest, TheOldNameOfCompatSaysWhichTwoThereAre) {
  try {
    optical({{"compat", "mase"}});
    FAIL() << "compat = \"mase\" was taken";
  } catch (const Error& error) {
    const std::string message = error.what();
    EXPECT_NE(message.find("mase-finetune"), std::string::npos) << message;
    EXPECT_NE(message.find("mase-pretrain"), std::string::npos) << message;
  }
}

}  // namespace optical_test
}  // namespace refract
