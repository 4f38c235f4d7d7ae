#include "analysis/matching/head_maps.h"

#include <ATen/ops/equal.h>
#include <ATen/ops/matmul.h>
#include <gtest/gtest.h>

#include <string>

#include "analysis/matching/orthogonal.h"
#include "model/parameters.h"
#include "support/small_models.h"
#include "support/symmetries.h"
#include "support/tolerances.h"

namespace refract {
namespace head_maps_test {

using testing::decoder_of;
using testing::every_shape;
using testing::expect_close;
using testing::logits;
using testing::make_decoder;

at::Tensor random_maps(const ModelConfig& config, const std::string& name) {
  const int64_t D = config.head_dim;
  return draw_normal({config.num_key_value_heads, D, D}, 4, name, 0.3).to(at::kDouble);
}

TEST(HeadMaps, LeaveTheFunctionOfEveryShapeAlone) {
  for (const auto& [name, config] : every_shape()) {
    auto model = make_decoder(config, at::kDouble);
    const at::Tensor before = logits(*model);
    const NamedWeights original = named_weights(*model);
    NamedWeights weights = original;
    for (int64_t layer = 0; layer < config.num_hidden_layers; ++layer) {
      map_heads(
          weights, config, layer,
          invertible_maps(random_maps(config, "keys"), random_maps(config, "values"), config));
    }
    expect_close(logits(*decoder_of(config, weights)), before, name + ", invertible", 10);
    const auto moved = [&](const char* which) {
      const std::string weight = in_layer(1, std::string("self_attn.") + which + "_proj.weight");
      return !at::equal(weights.at(weight), original.at(weight));
    };
    EXPECT_TRUE(moved("v") && moved("o")) << name;
    if (!config.qk_norm) {
      EXPECT_TRUE(moved("q") && moved("k")) << name;
    }
    map_heads(weights, config, 0,
              rotations(best_key_rotation(random_maps(config, "score"), config),
                        procrustes(random_maps(config, "other score"))));
    expect_close(logits(*decoder_of(config, weights)), before, name + ", rotated", 10);
  }
}

TEST(HeadMaps, FindTheRotationThatHeadsWereTurnedBy) {
  for (const auto& [name, config] : every_shape()) {
    const at::Tensor turn = best_key_rotation(random_maps(config, "turn"), config);
    const at::Tensor keys = random_maps(config, "heads");  // D features of D tokens
    const at::Tensor score = at::matmul(at::matmul(turn, keys), keys.transpose(-2, -1));
    expect_close(best_key_rotation(score, config), turn, name, 1000);
  }
}

}  // namespace head_maps_test
}  // namespace refract
