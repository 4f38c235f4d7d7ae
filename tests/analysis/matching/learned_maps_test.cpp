#include "analysis/matching/learned_maps.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/equal.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "analysis/matching/folding.h"
#include "model/parameters.h"
#include "support/small_models.h"
#include "support/symmetries.h"
#include "support/tolerances.h"

namespace refract {
namespace learned_maps_test {

using testing::decoder_of;
using testing::every_shape;
using testing::expect_close;
using testing::logits;
using testing::make_decoder;

std::vector<at::Tensor> random_scores(const ModelConfig& config) {
  std::vector<at::Tensor> scores;
  const int64_t F = config.intermediate_size;
  for (int64_t layer = 0; layer < config.num_hidden_layers; ++layer)
    scores.push_back(draw_normal({F, F}, static_cast<uint64_t>(layer), "scores", 1));
  return scores;
}

TEST(LearnedMaps, LeaveTheFunctionOfEveryShapeAlone) {
  const at::NoGradGuard no_grad;
  for (const auto& [name, config] : every_shape()) {
    auto model = make_decoder(config, at::kDouble);
    const at::Tensor before = logits(*model);
    NamedWeights weights = named_weights(*model);
    fold_norms(weights, config);
    const ModelConfig folded = folded_config(config);
    LearnedMaps maps(folded, {}, random_scores(config), at::kCPU);
    for (LearnedMaps::Free& free : maps.free()) {
      if (!free.units) free.value.copy_(draw_normal(free.value.sizes(), 3, name, 0.3));
    }
    const NamedWeights mapped = maps.apply(weights);
    expect_close(logits(*decoder_of(folded, mapped)), before, name, 10);
    for (const char* moved : {"model.embed_tokens.weight", "model.layers.1.self_attn.v_proj.weight",
                              "model.layers.1.mlp.down_proj.weight"}) {
      EXPECT_FALSE(at::equal(mapped.at(moved), weights.at(moved))) << name << ": " << moved;
    }
  }
}

TEST(LearnedMaps, TakeTheBestUnitsForTheirScores) {
  const at::NoGradGuard no_grad;
  const ModelConfig config = testing::small_llama();
  const NamedWeights weights = named_weights(*make_decoder(config, at::kDouble));
  MapClasses units;
  units.stream = units.heads = false;
  LearnedMaps maps(config, units, random_scores(config), at::kCPU);
  EXPECT_EQ(maps.free().size(), 2);
  EXPECT_EQ(maps.assign_units(), 0);  // taken at the start
  const Permutation order = testing::shuffled(config.intermediate_size, 6);
  for (LearnedMaps::Free& free : maps.free()) {
    free.value.zero_();
    for (size_t i = 0; i < order.size(); ++i) free.value[static_cast<int64_t>(i)][order[i]] = 1;
  }
  EXPECT_GT(maps.assign_units(), 0);
  NamedWeights expected = weights;
  for (int64_t layer = 0; layer < 2; ++layer) permute_units(expected, layer, order);
  for (const auto& [name, value] : maps.apply(weights))
    EXPECT_TRUE(at::equal(value, expected.at(name))) << name;
}

}  // namespace learned_maps_test
}  // namespace refract
