#include "analysis/matching/learn.h"

#include <ATen/ops/equal.h>
#include <gtest/gtest.h>

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "analysis/matching/align.h"
#include "analysis/matching/folding.h"
#include "core/random.h"
#include "support/errors.h"
#include "support/small_models.h"
#include "support/symmetries.h"
#include "support/tolerances.h"
#include "train/step.h"

namespace refract {
namespace learn_test {

using testing::decoder_of;
using testing::expect_close;
using testing::logits;

constexpr int64_t kContext = 8;

// Each of 13 tokens follows from the one before, four times of five.
std::shared_ptr<TokenStream> some_stream() {
  RandomStream random(1, "tokens");
  std::vector<int32_t> tokens = {0};
  for (int i = 1; i < 2000; ++i) {
    tokens.push_back(random.uniform() < 0.8 ? (5 * tokens.back() + 3) % 13
                                            : static_cast<int32_t>(random.below(13)));
  }
  return make_token_stream(tokens);
}

std::unique_ptr<Decoder> trained(const ModelConfig& config, uint64_t seed) {
  constexpr int64_t kSteps = 80, kBatch = 8;
  RunConfig run;
  run.run.seed = static_cast<int64_t>(seed);
  run.data.context = kContext;
  run.train.batch = kBatch;
  run.train.steps = kSteps;
  run.train.device = "cpu";
  run.optimizer.lr = 1e-2;
  auto model = std::make_unique<Decoder>(config, DenseFactory());
  model->allocate(at::kCPU, at::kFloat);
  model->initialize(seed);
  TrainStep step(*model, run, some_stream(), kSteps);
  for (int64_t i = 0; i < kSteps; ++i) step.run(i, i * kBatch);
  return model;
}

AlignOptions learning(int64_t steps) {
  AlignOptions options;
  options.stream = some_stream();
  options.context = kContext;
  options.learn.steps = steps;
  options.learn.tokens = 256;
  return options;
}

// Trained in fp32; what is done to the weights is done in float64.
void expect_function_of(const Matched& matched, const NamedWeights& weights, Decoder& model,
                        const std::string& what) {
  const NamedWeights before = named_weights(model);
  expect_close(logits(*decoder_of(matched.config, weights)),
               logits(*decoder_of(model.config(), before)), what, 100);
}

// From models as they were trained, which nothing has matched yet.
TEST(Learn, LowersTheLossHalfWay) {
  for (const ModelConfig& config : {testing::small_gpt2(), testing::small_llama()}) {
    NamedWeights a = named_weights(*trained(config, 1)), b = named_weights(*trained(config, 2));
    fold_norms(a, config);
    fold_norms(b, config);
    Decoder point(folded_config(config), DenseFactory());
    point.allocate(at::kCPU, at::kFloat);
    const NamedWeights first = a;
    LearnOptions options = learning(120).learn;
    options.rate = 3e-2;
    const LearnReport report = learn_matching(point, a, b, {}, *some_stream(), kContext, options);
    EXPECT_LT(report.after, report.before - 0.1) << config.norm;
    EXPECT_TRUE(at::equal(a.at("lm_head.weight"), first.at("lm_head.weight"))) << config.norm;
  }
}

TEST(Learn, KeepsBothFunctions) {
  ModelConfig gpt2 = testing::small_gpt2(), llama = testing::small_llama();
  for (ModelConfig* config : {&gpt2, &llama}) {
    auto a = trained(*config, 1), b = trained(*config, 2);
    for (const bool both : {false, true}) {
      AlignOptions options = learning(20);
      options.learn.both = both;
      int64_t calls = 0;
      options.learn.done = [&](int64_t step, double loss) {
        EXPECT_EQ(step, ++calls);
        EXPECT_GT(loss, 0);
      };
      const Matched matched = match_models(*a, *b, options);
      const std::string what =
          std::string(config == &gpt2 ? "gpt2" : "llama") + (both ? ", both ends" : ", one end");
      EXPECT_EQ(calls, 20);
      EXPECT_GT(matched.report.learned.before, 0) << what;
      EXPECT_NE(matched.report.learned.after, matched.report.learned.before) << what;
      EXPECT_EQ(matched.report.heads, "invertible") << what;
      EXPECT_EQ(matched.moved_a, both || config == &gpt2) << what;
      expect_function_of(matched, matched.a, *a, what + ": A");
      expect_function_of(matched, matched.b, *b, what + ": B");
    }
  }
}

// Where the stream is only permuted the configuration stays, and A with it.
TEST(Learn, MovesWhatItMayAlone) {
  const ModelConfig config = testing::small_gpt2();
  auto a = trained(config, 1), b = trained(config, 2);
  AlignOptions options = learning(40);
  options.residual = "permutation";
  const Matched matched = match_models(*a, *b, options);
  EXPECT_TRUE(matched.config.tie_word_embeddings);
  EXPECT_FALSE(matched.moved_a);
  EXPECT_LT(matched.report.learned.after, matched.report.learned.before);
  expect_function_of(matched, matched.b, *b, "B");
}

TEST(Learn, RefusesATextThatIsTooShort) {
  const ModelConfig config = testing::small_gpt2();
  auto a = testing::make_decoder(config), b = testing::make_decoder(config);
  AlignOptions options = learning(1);
  options.stream = make_token_stream({1, 2, 3});
  EXPECT_EQ(testing::error_of([&] { match_models(*a, *b, options); }),
            "the corpus has 3 tokens, less than one window of 9");
}

}  // namespace learn_test
}  // namespace refract
