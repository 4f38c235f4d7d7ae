#include "train/run_config.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <string>

#include "core/error.h"
#include "core/files.h"
#include "support/temporary_folder.h"

namespace refract {
namespace {

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
  const testing::TemporaryFolder folder;
  write_file_atomically(folder / "resolved.toml", text);
  nlohmann::json tree = read_recipe(folder.str("resolved.toml"), {});
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

}  // namespace
}  // namespace refract
