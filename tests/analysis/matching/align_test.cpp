#include "analysis/matching/align.h"

#include <ATen/ops/equal.h>
#include <ATen/ops/linalg_qr.h>
#include <ATen/ops/matmul.h>
#include <gtest/gtest.h>

#include <numeric>

#include "analysis/matching/linear_assignment.h"
#include "core/error.h"
#include "core/random.h"
#include "support/small_models.h"
#include "support/tolerances.h"

namespace refract {
namespace {

using testing::every_setting;
using testing::expect_close;
using testing::make_decoder;
using testing::tokens_for;

Permutation shuffled(int64_t n, uint64_t seed) {
  RandomStream random(seed, "shuffle");
  Permutation p(n);
  std::iota(p.begin(), p.end(), 0);
  for (int64_t i = n - 1; i > 0; --i)
    std::swap(p[i], p[random.below(static_cast<uint64_t>(i) + 1)]);
  return p;
}

double total(const std::vector<double>& score, const Permutation& p) {
  double sum = 0;
  for (size_t i = 0; i < p.size(); ++i) sum += score[i * p.size() + static_cast<size_t>(p[i])];
  return sum;
}

TEST(LinearAssignment, IsTheBestOfAllPermutations) {
  for (uint64_t seed = 1; seed <= 60; ++seed) {
    RandomStream random(seed, "scores");
    const auto n = static_cast<int64_t>(1 + seed % 6);
    std::vector<double> score(n * n);
    // Every third case has few distinct values, so many ties.
    for (double& s : score)
      s = seed % 3 == 0 ? static_cast<double>(random.below(3)) : random.uniform() - 0.5;
    const Permutation found = maximal_assignment(score, n);
    Permutation p(n), sorted = found;
    std::iota(p.begin(), p.end(), 0);
    std::sort(sorted.begin(), sorted.end());
    ASSERT_EQ(sorted, p) << "not a permutation, seed " << seed;
    double best = total(score, p);
    while (std::next_permutation(p.begin(), p.end())) best = std::max(best, total(score, p));
    EXPECT_NEAR(total(score, found), best, 1e-12) << "seed " << seed;
  }
}

TEST(LinearAssignment, FindsAHiddenPermutationOfMany) {
  const Permutation hidden = shuffled(300, 4);
  RandomStream random(7, "noise");
  std::vector<double> score(300 * 300);
  for (double& s : score) s = 0.9 * random.uniform();
  for (int64_t i = 0; i < 300; ++i) score[i * 300 + hidden[i]] = 1;
  EXPECT_EQ(maximal_assignment(score, 300), hidden);
}

// Every permutation there is, at random.
void shuffle(NamedWeights& weights, const ModelConfig& c, uint64_t seed, bool residual = true) {
  for (int64_t layer = 0; layer < c.num_hidden_layers; ++layer) {
    const uint64_t own = 100 * seed + static_cast<uint64_t>(layer);
    permute_units(weights, layer, shuffled(c.intermediate_size, own));
    HeadPermutation heads{shuffled(c.num_key_value_heads, own + 1), {}};
    for (int64_t g = 0; g < c.num_key_value_heads; ++g) {
      heads.inner.push_back(shuffled(c.num_attention_heads / c.num_key_value_heads,
                                     own + 2 + static_cast<uint64_t>(g)));
    }
    permute_heads(weights, c, layer, heads);
  }
  if (residual) permute_residual(weights, c, shuffled(c.hidden_size, 100 * seed + 77));
}

at::Tensor logits(Decoder& model) {
  return model.logits(model.hidden({}, tokens_for(model.config(), 3, 9)));
}

TEST(Symmetry, LeavesTheFunctionOfEverySettingAlone) {
  for (const auto& [name, config] : every_setting()) {
    auto model = make_decoder(config, at::kDouble);
    const at::Tensor before = logits(*model);
    NamedWeights weights = named_weights(*model);
    shuffle(weights, config, 3);
    write_weights(weights, *model);
    EXPECT_FALSE(at::equal(
        weights.at("model.embed_tokens.weight"),
        named_weights(*make_decoder(config, at::kDouble)).at("model.embed_tokens.weight")));
    expect_close(logits(*model), before, name);
  }
}

at::Tensor random_rotation(int64_t n) {
  at::Tensor random = at::empty({n, n}, at::kDouble);
  RandomStream stream(9, "rotation");
  for (int64_t i = 0; i < n * n; ++i) random.mutable_data_ptr<double>()[i] = stream.uniform() - 0.5;
  return std::get<0>(at::linalg_qr(random));
}

TEST(Symmetry, FoldedScalesAndARotationLeaveTheFunctionAlone) {
  const ModelConfig config = testing::small_llama();
  auto model = make_decoder(config, at::kDouble);
  const at::Tensor before = logits(*model);
  const NamedWeights original = named_weights(*model);
  NamedWeights weights = original;
  fold_scales(weights, config);
  write_weights(weights, *model);
  expect_close(logits(*model), before, "folded");
  rotate_residual(weights, config, random_rotation(config.hidden_size));
  write_weights(weights, *model);
  expect_close(logits(*model), before, "rotated");
  unfold_scales(weights, config, original);
  write_weights(weights, *model);
  expect_close(logits(*model), before, "with the first model's scales");
}

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
    fold_scales(weights, config);
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

TEST(Align, RefusesARotationThatDoesNotExist) {
  for (const auto& [name, config] : every_setting()) {
    if (config.rms() && !config.tie_word_embeddings) continue;
    auto a = make_decoder(config), b = make_decoder(config);
    AlignOptions options = by("weights", config);
    options.residual = "orthogonal";
    EXPECT_THROW(align(*a, *b, options), Error) << name;
  }
}

}  // namespace
}  // namespace refract
