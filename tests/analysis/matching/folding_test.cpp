#include "analysis/matching/folding.h"

#include <gtest/gtest.h>

#include "core/error.h"
#include "support/errors.h"
#include "support/small_models.h"
#include "support/symmetries.h"
#include "support/tolerances.h"

namespace refract {
namespace folding_test {

using testing::decoder_of;
using testing::every_shape;
using testing::expect_close;
using testing::logits;
using testing::make_decoder;
using testing::random_rotation;
using testing::random_rotation_keeping_mean;

TEST(Folding, AndARotationLeaveTheFunctionOfEveryShapeAlone) {
  for (const auto& [name, config] : every_shape()) {
    auto model = make_decoder(config, at::kDouble);
    const at::Tensor before = logits(*model);
    NamedWeights weights = named_weights(*model);
    fold_norms(weights, config);
    const ModelConfig folded = folded_config(config);
    EXPECT_EQ(weights.at("model.norm.weight").sub(1).abs().max().item<double>(), 0) << name;
    expect_close(logits(*decoder_of(folded, weights)), before, name + ", folded");
    const int64_t C = config.hidden_size;
    rotate_residual(weights, folded,
                    config.rms() ? random_rotation(C) : random_rotation_keeping_mean(C));
    expect_close(logits(*decoder_of(folded, weights)), before, name + ", rotated");
    if (config.tie_word_embeddings) continue;
    auto other = make_decoder(config, at::kDouble, DenseFactory(), 2);
    NamedWeights like = named_weights(*other);
    like["model.norm.weight"] = like["model.norm.weight"].mul(1.5);  // scales of its own
    unfold_norms(weights, config, like);
    expect_close(weights.at("model.norm.weight"), like.at("model.norm.weight"), name);
    expect_close(logits(*decoder_of(config, weights)), before, name + ", with other scales");
  }
}

TEST(Folding, RefusesWhatHasNoInverse) {
  const ModelConfig config = testing::small_llama();
  const NamedWeights original = named_weights(*make_decoder(config, at::kDouble));
  NamedWeights weights = original, like = original;
  fold_norms(weights, config);
  like["model.norm.weight"] = like["model.norm.weight"].mul(0);
  EXPECT_EQ(testing::error_of([&] { unfold_norms(weights, config, like); }),
            "'model.norm.weight' has a scale of 0, so the other model can't be written with its "
            "scales; use --residual permutation");
  // The head has no bias that could take the one of a LayerNorm.
  const ModelConfig gpt2 = testing::small_gpt2();
  NamedWeights zero = named_weights(*make_decoder(gpt2, at::kDouble));
  zero["model.norm.weight"] = zero["model.norm.weight"].mul(0);
  EXPECT_EQ(testing::error_of([&] { fold_norms(zero, gpt2); }),
            "'model.norm.weight' has a scale of 0, so its bias can't be kept beside a scale of 1; "
            "use --residual permutation");
}

}  // namespace folding_test
}  // namespace refract
