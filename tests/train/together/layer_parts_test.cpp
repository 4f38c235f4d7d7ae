// What is sent ahead of the end of a backward pass: whole gradients, and each element once.
#include "train/together/layer_parts.h"

#include <ATen/ops/equal.h>
#include <ATen/ops/zeros.h>
#include <gtest/gtest.h>

#include <map>
#include <string>
#include <utility>
#include <vector>

#include "model/backward/layer_gradients.h"
#include "model/backward/recompute.h"
#include "support/small_models.h"

namespace refract {
namespace layer_parts_test {

constexpr int64_t kLayers = 3;

// Of the names of what becomes complete together: a layer, or behind the last one the head.
std::string prefix_of(int64_t layer) {
  return layer == kLayers ? "lm_head.weight" : "model.layers." + std::to_string(layer) + ".";
}

// The gradients of a layer's parameters, by name.
std::map<std::string, at::Tensor> gradients_of(const ParameterArena& arena, int64_t layer) {
  std::map<std::string, at::Tensor> all;
  for (const Parameter& parameter : arena.parameters()) {
    if (parameter.trainable && parameter.name.starts_with(prefix_of(layer)))
      all[parameter.name] = arena.gradient(&parameter).clone();
  }
  return all;
}

void expect_complete_when_told(const std::string& name, const ModelConfig& config,
                               Recompute recompute) {
  const auto model = testing::make_decoder(config);
  const ParameterArena& arena = model->arena();
  const at::Tensor tokens = testing::tokens_for(config, 2, 9);
  ForwardContext context;
  context.training = true;
  context.seed = 5;
  context.clock = at::zeros({2}, at::kLong);
  std::vector<std::pair<int64_t, std::map<std::string, at::Tensor>>> told;
  const RecomputeScope scope(recompute);
  {
    const LayerGradients through([&](int64_t layer) {
      told.emplace_back(layer, gradients_of(arena, layer));
      for (const auto& [of, gradient] : gradients_of(arena, 0))
        EXPECT_EQ(gradient.abs().max().item<double>(), 0) << name << ": " << of;
    });
    model->loss(context, tokens.narrow(1, 0, 8), tokens.narrow(1, 1, 8)).sum.backward();
  }
  ASSERT_EQ(static_cast<int64_t>(told.size()), kLayers) << name;
  for (size_t i = 0; i < told.size(); ++i) {
    EXPECT_EQ(told[i].first, kLayers - static_cast<int64_t>(i)) << name;
    const auto whole = gradients_of(arena, told[i].first);
    EXPECT_EQ(whole.empty(), i == 0 && config.tie_word_embeddings) << name;
    for (const auto& [of, gradient] : whole)
      EXPECT_TRUE(at::equal(told[i].second.at(of), gradient)) << name << ": " << of;
  }
}

TEST(LayerGradients, AreCompleteWhenTheLayerIsTold) {
  for (auto [name, config] : testing::every_setting()) {
    config.num_hidden_layers = kLayers;
    if (!config.layer_types.empty()) config.layer_types.push_back(config.layer_types.back());
    expect_complete_when_told(name, config, Recompute::kNone);
    expect_complete_when_told(name, config, Recompute::kLayer);
  }
}

TEST(LayerGradients, AreToldOfNobodyOutsideOfAScope) {
  const auto [name, config] = *testing::every_setting().begin();
  const auto model = testing::make_decoder(config);
  const at::Tensor tokens = testing::tokens_for(config, 2, 9);
  int64_t calls = 0;
  {
    const LayerGradients through([&](int64_t /*layer*/) { ++calls; });
  }
  model->loss({}, tokens.narrow(1, 0, 8), tokens.narrow(1, 1, 8)).sum.backward();
  EXPECT_EQ(calls, 0);
}

TEST(LayerParts, HoldAllMatricesOfALayerAndNothingElse) {
  for (const bool tied : {true, false}) {
    ModelConfig config = testing::small_llama();
    config.hidden_size = 64;
    config.intermediate_size = 128;
    config.vocab_size = 100;
    config.num_hidden_layers = kLayers;
    config.tie_word_embeddings = tied;
    const auto model = testing::make_decoder(config);
    const ParameterArena& arena = model->arena();
    const std::vector<Range> parts = layer_parts(arena);
    ASSERT_EQ(static_cast<int64_t>(parts.size()), kLayers + 1);
    EXPECT_EQ(parts.back().size() == 0, tied);
    for (const Parameter& parameter : arena.parameters()) {
      for (int64_t layer = 0; layer <= kLayers; ++layer) {
        const Range& part = parts[static_cast<size_t>(layer)];
        const bool inside = parameter.offset >= part.begin && parameter.offset < part.end;
        const bool own =
            parameter.name.starts_with(prefix_of(layer)) && parameter.offset < arena.matrix_size();
        EXPECT_EQ(inside, own) << parameter.name;
      }
    }
  }
}

TEST(LayerParts, AreNotWorthIt) {
  ModelConfig config = testing::every_setting().begin()->second;
  config.hidden_size = 8;
  config.intermediate_size = 8;
  config.num_attention_heads = config.num_key_value_heads = 1;
  for (const Range& part : layer_parts(testing::make_decoder(config)->arena()))
    EXPECT_EQ(part.size(), 0);
}

TEST(Without, LeavesWhatTheOthersDoNotCover) {
  const auto rest = [](const Range& whole, std::vector<Range> others) {
    std::vector<std::pair<int64_t, int64_t>> all;
    for (const Range& range : without(whole, std::move(others)))
      all.emplace_back(range.begin, range.end);
    return all;
  };
  using Pairs = std::vector<std::pair<int64_t, int64_t>>;
  EXPECT_EQ(rest({0, 10}, {}), (Pairs{{0, 10}}));
  EXPECT_EQ(rest({0, 10}, {{6, 8}, {2, 4}}), (Pairs{{0, 2}, {4, 6}, {8, 10}}));
  EXPECT_EQ(rest({0, 10}, {{0, 10}}), Pairs{});
  EXPECT_EQ(rest({10, 20}, {{2, 4}, {6, 8}}), (Pairs{{10, 20}}));
  EXPECT_EQ(rest({0, 5}, {{5, 9}}), (Pairs{{0, 5}}));
  EXPECT_EQ(rest({0, 0}, {}), Pairs{});
}

}  // namespace layer_parts_test
}  // namespace refract
