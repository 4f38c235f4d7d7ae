// Which settings may change between two calls of a study that share a folder.
#include <gtest/gtest.h>

#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>

#include "core/config.h"
#include "core/files.h"
#include "studies/connectivity/connectivity_config.h"
#include "studies/connectivity/instability_runs.h"
#include "studies/sweep/sweep_plan.h"
#include "support/errors.h"
#include "support/temporary_folder.h"
#include "train/run_config.h"

namespace refract {
namespace settings_test {

using nlohmann::json;

json all_settings() {
  Fields fields;
  RunConfig run;
  ConnectivityConfig connectivity;
  describe(fields, run);
  describe(fields, connectivity);
  return fields.to_json();
}

TEST(StudySettings, AnAnalysisMayChangeWhatItReportsAndWhereItLies) {
  json expected = all_settings();
  for (const char* table : {"eval", "decode", "checkpoint", "log", "connectivity"})
    ASSERT_EQ(expected.erase(table), 1U) << table;
  ASSERT_EQ(expected["run"].erase("dir"), 1U);
  ASSERT_EQ(expected["data"].erase("cache"), 1U);
  ASSERT_EQ(expected["train"].erase("minutes"), 1U);
  EXPECT_EQ(decisive_settings(all_settings()), expected);
}

TEST(StudySettings, TheFirstOtherSettingIsNamed) {
  const testing::TemporaryFolder folder;
  RunConfig config;
  const std::filesystem::path file = folder / "config.toml";
  write_file_atomically(file, to_toml(config));
  EXPECT_EQ(other_setting(file, config), "");
  config.run.dir = "elsewhere";
  config.eval.every = 7;
  config.checkpoint.permanent = {3};
  EXPECT_EQ(other_setting(file, config), "");
  config.train.threads = 2;
  EXPECT_EQ(other_setting(file, config), "/train/threads");
}

TEST(StudySettings, ASweepMayChangeItsFolderAndItsThreads) {
  const testing::TemporaryFolder folder;
  const std::string recipe = (folder / "recipe.toml").string();
  write_file_atomically(recipe,
                        "[run]\ndir = \"runs/a\"\nseed = 2\n[data]\ncache = \"c\"\n"
                        "[model]\nhidden_size = 32\n[train]\nsteps = 3\nthreads = 2\n"
                        "[eval]\nevery = 5\n[checkpoint]\nkeep = 1\n[log]\nevery = 1\n"
                        "[decode]\npremerge = \"off\"\n");
  const std::vector<PlannedRun> planned =
      plan_sweep(recipe, {}, {parse_swept_key("optimizer.lr=1e-3")});
  ASSERT_EQ(planned.size(), 1U);
  EXPECT_EQ(json::parse(planned[0].run.settings), json::parse(R"({
    "run": {"seed": 2}, "data": {"cache": "c"}, "model": {"hidden_size": 32}, "train": {"steps": 3},
    "eval": {"every": 5}, "checkpoint": {"keep": 1}, "log": {"every": 1},
    "decode": {"premerge": "off"}, "optimizer": {"lr": 1e-3}})"));
}

}  // namespace settings_test
}  // namespace refract
