#include "train/run_config.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <string>
#include <utility>
#include <vector>

#include "core/error.h"
#include "core/files.h"
#include "support/temporary_folder.h"

namespace refract {
namespace run_config_test {

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

TEST(RunConfig, StepsMayCountANominalSizeAndBeRoundedEitherWay) {
  RunConfig config;
  config.train.tokens = "22*N/100";
  config.train.nominal = 60e6;
  config.train.batch = 16;
  config.data.context = 1024;
  const std::vector<std::pair<const char*, int64_t>> expected = {
      {"up", 806}, {"down", 805}, {"nearest", 806}};
  for (const auto& [rounding, steps] : expected) {
    config.train.rounding = rounding;
    EXPECT_EQ(resolve_steps(config, 85'000'000), steps) << rounding;  // 805.66 of them
  }
  // 0.1 * 30 is a little more than 3, and still three whole steps.
  config.train.tokens = "0.1*30*16*1024";
  for (const char* rounding : {"up", "down"}) {
    config.train.rounding = rounding;
    EXPECT_EQ(resolve_steps(config, 1), 3) << rounding;
  }
}

TEST(RunConfig, SgdDecaysNothingUnlessItIsTold) {
  const auto decay = [](const std::vector<std::string>& overrides) {
    return make_run_config(overrides_tree(overrides), "t").optimizer.weight_decay;
  };
  EXPECT_EQ(decay({"optimizer.name=adamw"}), 0.1);
  EXPECT_EQ(decay({"optimizer.name=sgd"}), 0);
  EXPECT_EQ(decay({"optimizer.name=sgd", "optimizer.weight_decay=5e-4"}), 5e-4);
}

TEST(RunConfig, MuonHasItsOwnMomentum) {
  const auto optimizer = [](const std::vector<std::string>& overrides) {
    return make_run_config(overrides_tree(overrides), "t").optimizer;
  };
  EXPECT_EQ(optimizer({"optimizer.name=muon"}).momentum, 0.95);
  EXPECT_TRUE(optimizer({"optimizer.name=muon"}).nesterov);
  EXPECT_EQ(optimizer({"optimizer.name=muon"}).weight_decay, 0.1);
  EXPECT_FALSE(optimizer({"optimizer.name=muon", "optimizer.nesterov=false"}).nesterov);
  EXPECT_EQ(optimizer({"optimizer.name=sgd"}).momentum, 0.9);
}

TEST(RunConfig, RefusesSchedulesAndStartsThatSayNothing) {
  const auto refused = [](std::vector<std::string> overrides) {
    EXPECT_THROW(make_run_config(overrides_tree(overrides), "t"), Error) << overrides.back();
  };
  refused({"schedule.kind=multistep"});
  refused({"schedule.milestones=[5]"});
  refused({"schedule.kind=multistep", "schedule.milestones=[5, 4]"});
  refused({"schedule.kind=multistep", "schedule.milestones=[0]"});
  refused({"schedule.warmup_from=2"});
  refused({"optimizer.name=sgd", "optimizer.momentum=0", "optimizer.nesterov=true"});
  refused({"init.from=some/model", "init.scheme=torchtitan"});
  EXPECT_EQ(make_run_config(overrides_tree({"init.scheme=torchtitan"}), "t").model.init_scheme,
            "torchtitan");
}

}  // namespace run_config_test
}  // namespace refract
