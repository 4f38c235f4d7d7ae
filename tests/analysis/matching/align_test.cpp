#include "analysis/matching/align.h"

#include <ATen/ops/equal.h>
#include <gtest/gtest.h>

#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "analysis/matching/folding.h"
#include "core/random.h"
#include "support/errors.h"
#include "support/small_models.h"
#include "support/symmetries.h"
#include "support/tolerances.h"

namespace refract {
namespace align_test {

using testing::decoder_of;
using testing::every_setting;
using testing::every_shape;
using testing::expect_close;
using testing::logits;
using testing::make_decoder;
using testing::random_rotation;
using testing::shuffle;

std::shared_ptr<TokenStream> some_tokens(const ModelConfig& config) {
  RandomStream random(3, "tokens");
  std::vector<int32_t> tokens;
  for (int i = 0; i < 600; ++i)
    tokens.push_back(static_cast<int32_t>(random.below(static_cast<uint64_t>(config.vocab_size))));
  return make_token_stream(tokens);
}

AlignOptions by(const std::string& what, const ModelConfig& config) {
  AlignOptions options;
  options.by = what;
  options.stream = some_tokens(config);
  options.context = 8;
  return options;
}

// Larger than the tiny models, so that every kind of permutation has room: GPT-2, Llama with
// grouped heads, and all other settings at their own size.
std::vector<std::pair<std::string, ModelConfig>> shapes() {
  std::vector<std::pair<std::string, ModelConfig>> all = every_setting();
  ModelConfig gpt2 = testing::small_gpt2(), llama = testing::small_llama();
  for (ModelConfig* c : {&gpt2, &llama}) {
    c->vocab_size = 101;
    c->hidden_size = 48;
    c->num_attention_heads = 12;
    c->head_dim = 4;
    c->intermediate_size = 96;
    c->num_hidden_layers = 3;
  }
  gpt2.num_key_value_heads = 12;
  llama.num_key_value_heads = 4;
  all.emplace_back("wide gpt2", gpt2);
  all.emplace_back("wide llama with groups", llama);
  return all;
}

TEST(Align, RecoversItsOwnPermutationExactly) {
  for (const auto& [name, config] : shapes()) {
    for (const char* what : {"weights", "activations"}) {
      auto a = make_decoder(config), b = make_decoder(config);
      NamedWeights weights = named_weights(*b);
      shuffle(weights, config, 5);
      write_weights(weights, *b);
      ASSERT_FALSE(at::equal(a->arena().master(), b->arena().master())) << name;
      const AlignReport report = align(*a, *b, by(what, config));
      EXPECT_TRUE(at::equal(a->arena().master(), b->arena().master())) << name << " by " << what;
      EXPECT_EQ(report.residual, "permutation") << name;
      EXPECT_EQ(report.distance_after, 0) << name << " by " << what;
    }
  }
}

TEST(Align, RecoversARotationToRounding) {
  const ModelConfig config = shapes().back().second;
  for (const char* what : {"weights", "activations"}) {
    auto a = make_decoder(config), b = make_decoder(config);
    NamedWeights weights = named_weights(*b);
    fold_norms(weights, config);
    rotate_residual(weights, config, random_rotation(config.hidden_size));
    shuffle(weights, config, 6, /*residual=*/false);
    write_weights(weights, *b);
    const AlignReport report = align(*a, *b, by(what, config));
    EXPECT_EQ(report.residual, "orthogonal");
    EXPECT_LT(report.distance_after, 1e-4 * report.distance_before) << what;
    expect_close(b->arena().master(), a->arena().master(), what, 20);
  }
}

// The tolerance of fp32, times ten: the weights were rounded once more and logits of these enlarged
// models are of the order of ten.
TEST(Align, KeepsTheFunctionOfAnIndependentModel) {
  for (const auto& [name, config] : shapes()) {
    for (const char* what : {"weights", "activations"}) {
      auto a = make_decoder(config, at::kFloat, DenseFactory(), 1);
      auto b = make_decoder(config, at::kFloat, DenseFactory(), 2);
      const at::Tensor before = logits(*b);
      const AlignReport report = align(*a, *b, by(what, config));
      expect_close(logits(*b), before, name + " by " + what, 10);
      if (std::string(what) == "weights") {
        EXPECT_LT(report.distance_after, report.distance_before) << name;
      }
    }
  }
}

// In float64; a tied model's weights are folded ones with a head of their own.
TEST(Align, MapsEveryShapeOrthogonallyAndKeepsItsFunction) {
  for (const auto& [name, config] : every_shape()) {
    for (const char* what : {"weights", "activations"}) {
      auto a = make_decoder(config, at::kDouble, DenseFactory(), 1);
      auto b = make_decoder(config, at::kDouble, DenseFactory(), 2);
      AlignOptions options = by(what, config);
      options.residual = options.heads = "orthogonal";
      const Matched matched = match_models(*a, *b, options);
      EXPECT_EQ(matched.moved_a, config.tie_word_embeddings) << name;
      EXPECT_EQ(matched.config.tie_word_embeddings, false) << name;
      EXPECT_EQ(matched.report.residual + ", " + matched.report.heads, "orthogonal, orthogonal");
      const std::string label = name + " by " + what;
      expect_close(logits(*decoder_of(matched.config, matched.a)), logits(*a), label + ": A");
      expect_close(logits(*decoder_of(matched.config, matched.b)), logits(*b), label + ": B", 10);
    }
  }
}

// More kinds of maps bring the models at least as near.
TEST(Align, ComesNearerWithRotations) {
  for (const auto& [name, config] : every_shape()) {
    if (config.tie_word_embeddings || !config.rms()) continue;  // distances are in other weights
    auto a = make_decoder(config, at::kDouble, DenseFactory(), 1);
    auto b = make_decoder(config, at::kDouble, DenseFactory(), 2);
    AlignOptions options = by("weights", config);
    options.residual = "permutation";
    options.heads = "whole";
    const double permuted = match_models(*a, *b, options).report.distance_after;
    options.heads = "orthogonal";
    EXPECT_LE(match_models(*a, *b, options).report.distance_after, permuted) << name;
  }
}

TEST(Align, RefusesToChangeTheFirstModelUnasked) {
  const ModelConfig config = testing::small_gpt2();
  auto a = make_decoder(config), b = make_decoder(config, at::kFloat, DenseFactory(), 2);
  AlignOptions options = by("weights", config);
  options.residual = "orthogonal";
  EXPECT_NE(testing::error_of([&] { align(*a, *b, options); }).find("refract align"),
            std::string::npos);
}

}  // namespace align_test
}  // namespace refract
