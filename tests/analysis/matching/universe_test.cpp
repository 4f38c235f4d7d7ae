#include "analysis/matching/universe.h"

#include <ATen/ops/equal.h>
#include <gtest/gtest.h>

#include <memory>
#include <vector>

#include "support/errors.h"
#include "support/small_models.h"
#include "support/symmetries.h"

namespace refract {
namespace universe_test {

using testing::make_decoder;

ModelConfig wide(ModelConfig config) {
  config.vocab_size = 61;
  config.hidden_size = 32;
  config.num_attention_heads = 8;
  config.head_dim = 4;
  config.intermediate_size = 64;
  config.num_hidden_layers = 2;
  return config;
}

std::vector<ModelConfig> wide_models() {
  ModelConfig gpt2 = wide(testing::small_gpt2()), llama = wide(testing::small_llama());
  gpt2.num_key_value_heads = 8;
  llama.num_key_value_heads = 4;
  resolve(gpt2, 0, 0);
  resolve(llama, 0, 0);
  return {gpt2, llama};
}

struct Several {
  Several(const ModelConfig& config, int64_t count) : mean(make_decoder(config)) {
    for (int64_t i = 0; i < count; ++i) owned.push_back(make_decoder(config));
    for (const auto& one : owned) models.push_back(one.get());
  }
  std::vector<std::unique_ptr<Decoder>> owned;
  std::vector<Decoder*> models;
  std::unique_ptr<Decoder> mean;
};

TEST(Universe, PermutedCopiesOfOneModelComeBackEqual) {
  for (const ModelConfig& config : wide_models()) {
    Several all(config, 4);
    for (size_t i = 0; i < all.models.size(); ++i) {
      NamedWeights weights = named_weights(*all.models[i]);
      testing::shuffle(weights, config, i + 3);
      write_weights(weights, *all.models[i]);
    }
    const at::Tensor first = all.models[0]->arena().master().clone();
    const UniverseReport report = match_universe(all.models, *all.mean);
    EXPECT_GT(report.spread_before, 1) << config.norm;
    EXPECT_EQ(report.spread_after, 0) << config.norm;
    EXPECT_EQ(report.rounds, 1) << config.norm;
    for (Decoder* model : all.models)
      EXPECT_TRUE(at::equal(model->arena().master(), first)) << config.norm;
    EXPECT_TRUE(at::equal(all.mean->arena().master(), first)) << config.norm;
  }
}

TEST(Universe, DifferentModelsComeNearerAndStayWhatTheyCompute) {
  for (const ModelConfig& config : wide_models()) {
    Several all(config, 3);
    std::vector<at::Tensor> before;
    for (size_t i = 0; i < all.models.size(); ++i) {
      all.owned[i] = make_decoder(config, at::kFloat, DenseFactory(), i + 1);
      all.models[i] = all.owned[i].get();
      before.push_back(testing::logits(*all.models[i]));
    }
    const UniverseReport report = match_universe(all.models, *all.mean);
    EXPECT_LT(report.spread_after, 0.99 * report.spread_before) << config.norm;
    EXPECT_GT(report.rounds, 1) << config.norm;
    EXPECT_EQ(report.distances.size(), 3U);
    for (size_t i = 0; i < all.models.size(); ++i) {
      const at::Tensor after = testing::logits(*all.models[i]);
      EXPECT_LT(after.sub(before[i]).abs().max().item<double>(),
                1e-3 * before[i].abs().max().item<double>())
          << config.norm;
    }
  }
}

TEST(Universe, AFrameTakesTwo) {
  Several all(testing::small_gpt2(), 1);
  EXPECT_EQ(testing::error_of([&] { match_universe(all.models, *all.mean); }),
            "a common frame is that of at least two models");
}

}  // namespace universe_test
}  // namespace refract
