#include <ATen/core/grad_mode.h>
#include <ATen/ops/from_blob.h>
#include <ATen/ops/log_softmax.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "core/error.h"
#include "core/files.h"
#include "decode/generate.h"
#include "support/training.h"
#include "train/schedule.h"

namespace refract {
namespace {

RunConfig schedule_config(const std::string& kind) {
  RunConfig config;
  config.optimizer.lr = 6e-4;
  config.schedule = {kind, 10, 0.1, 0.1};
  return config;
}

TEST(Schedule, WarmsUpLinearlyFromItsStart) {
  const RunConfig config = schedule_config("cosine");
  EXPECT_NEAR(learning_rate(config, 0, 110), 6e-4 * (0.1 + 0.9 * 0.1), 1e-12);
  EXPECT_NEAR(learning_rate(config, 9, 110), 6e-4, 1e-12);
  EXPECT_NEAR(learning_rate(config, 10, 110), 6e-4, 1e-12);
}

TEST(Schedule, ComesDownInItsShape) {
  EXPECT_NEAR(learning_rate(schedule_config("cosine"), 60, 110), 6e-4 * (0.1 + 0.9 * 0.5), 1e-12);
  EXPECT_NEAR(learning_rate(schedule_config("cosine"), 35, 110),
              6e-4 * (0.1 + 0.9 * (1 + std::sqrt(0.5)) / 2), 1e-12);
  EXPECT_NEAR(learning_rate(schedule_config("linear"), 35, 110), 6e-4 * (0.1 + 0.9 * 0.75), 1e-12);
  EXPECT_NEAR(learning_rate(schedule_config("linear"), 110, 110), 6e-5, 1e-12);
  EXPECT_NEAR(learning_rate(schedule_config("constant"), 100, 110), 6e-4, 1e-12);
}

TEST(Schedule, WarmupMayBeAFraction) {
  RunConfig config = schedule_config("cosine");
  config.schedule.warmup = 0.25;
  EXPECT_EQ(warmup_steps(config, 1000), 250);
  config.schedule.warmup = 0;
  EXPECT_EQ(warmup_steps(config, 1000), 0);
  EXPECT_NEAR(learning_rate(config, 0, 1000), 6e-4, 1e-12);
}

TEST(RunConfig, TokensMayDependOnTheParameterCount) {
  RunConfig config;
  config.train.tokens = "22*N/100";
  config.train.batch = 16;
  config.data.context = 1024;
  EXPECT_EQ(resolve_steps(config, 60'000'000), 806);  // 13.2M tokens over 16,384
  config.train.tokens = "N-N";
  EXPECT_THROW(resolve_steps(config, 100), Error);
}

TEST(RunConfig, PresetsAreOverriddenByKeys) {
  const auto tree =
      overrides_tree({"model.preset=gpt2", "model.num_hidden_layers=3", "train.steps=5"});
  const RunConfig config = make_run_config(tree, "test");
  EXPECT_EQ(config.model.hidden_size, 768);
  EXPECT_EQ(config.model.num_hidden_layers, 3);
}

TEST(RunConfig, ResolvedSettingsReadBack) {
  RunConfig config = make_run_config(
      overrides_tree({"model.preset=clm-60m", "optimizer.lr=1e-7", "eval.batches=3"}), "test");
  const std::string text = to_toml(config);
  const std::filesystem::path path = std::filesystem::path(testing::TempDir()) / "resolved.toml";
  write_file_atomically(path, text);
  nlohmann::json tree = read_recipe(path.string(), {});
  tree["model"].erase("preset");
  config.model.preset.clear();
  EXPECT_EQ(to_toml(make_run_config(tree, "again")), to_toml(config));
}

TEST(RunConfig, RefusesWhatDoesNotFit) {
  EXPECT_THROW(make_run_config(overrides_tree({"train.batch=6", "train.micro_batch=4"}), "t"),
               Error);
  EXPECT_THROW(make_run_config(overrides_tree({"train.steps=1", "train.tokens=5"}), "t"), Error);
  EXPECT_THROW(make_run_config(overrides_tree({"eval.batches=some"}), "t"), Error);
  EXPECT_THROW(make_run_config(overrides_tree({"optimizer.betas=[0.9]"}), "t"), Error);
  EXPECT_THROW(make_run_config(overrides_tree({"model.preset=tinygpd"}), "t"), Error);
}

// The oracle predicts every token by itself, from logits, in float64.
TEST(Evaluate, PredictsEveryTokenOnce) {
  TinyRun run(tiny_config("evaluate"));
  at::NoGradGuard no_grad;
  std::vector<int32_t> tokens(43);
  tiny_stream()->read(0, tokens);
  double sum = 0;
  int64_t correct = 0;
  for (int64_t begin = 0; begin + 1 < 43; begin += 8) {
    const int64_t length = std::min<int64_t>(8, 42 - begin);
    const at::Tensor input =
        at::from_blob(tokens.data() + begin, {1, length}, at::TensorOptions().dtype(at::kInt))
            .clone();
    const at::Tensor logits = run.model->logits(run.model->hidden({}, input)).to(at::kDouble)[0];
    const at::Tensor log_p = at::log_softmax(logits, -1);
    for (int64_t t = 0; t < length; ++t) {
      const int32_t target = tokens[begin + t + 1];
      sum -= log_p[t][target].item<double>();
      correct += logits[t].argmax().item<int64_t>() == target;
    }
  }
  const Evaluation result = evaluate(*run.model, *make_token_stream(tokens), 8);
  EXPECT_EQ(result.tokens, 42);
  EXPECT_NEAR(result.loss, sum / 42, 1e-5);
  EXPECT_EQ(std::llround(result.accuracy * 42), correct);
  EXPECT_EQ(evaluate(*run.model, *make_token_stream(tokens), 8, 2).tokens, 16);
}

}  // namespace
}  // namespace refract
