#include "studies/connectivity/connectivity_paths.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "core/files.h"
#include "runs/loaded_model.h"
#include "studies/connectivity/tiny_plan.h"
#include "support/errors.h"
#include "support/temporary_folder.h"

namespace refract {
namespace connectivity_paths_test {

namespace fs = std::filesystem;
using nlohmann::json;
using testing::error_of;

TEST(ConnectivityPaths, LeadFromEachMemberToTheOthers) {
  const testing::TemporaryFolder scratch;
  const InstabilityPlan plan = tiny_plan(scratch / "all");
  InstabilityRuns runs(plan);
  ASSERT_TRUE(runs.train());
  ConnectivityPaths paths(plan);
  paths.check_settings();
  const ConnectivityResult result = paths.measure(runs);
  EXPECT_EQ(result.members, (std::vector<std::string>{"copy-1", "copy-2"}));
  ASSERT_EQ(result.spawned.size(), 2u);
  ASSERT_EQ(result.spawned[1].pairs.size(), 1u);
  const PairPath& pair = result.spawned[1].pairs[0];
  EXPECT_EQ(pair.file, "seed-1/spawn-00000003/path-copy-1~copy-2.json");
  ASSERT_EQ(pair.path.splits.size(), 2u);
  EXPECT_EQ(pair.path.splits[1].name, "val");
  // The ends are the trained runs: alpha 0 is copy-2.
  LoadedModel copy = load_model((runs.folder(1, 3) / "copy-2").string(), {"train.device=cpu"});
  EXPECT_EQ(pair.path.splits[1].points[0].loss,
            evaluate(*copy.model, *plan.data.validation, 8).loss);
  EXPECT_EQ(pair.path.splits[1].points[0].tokens, 1999);
  // Copies that part later are nearer to each other.
  EXPECT_GT(pair.path.geometry.distance, 0);
  EXPECT_LT(pair.path.geometry.distance, result.spawned[0].pairs[0].path.geometry.distance);
}

TEST(ConnectivityPaths, AreMeasuredOnceUnderTheSameSettings) {
  const testing::TemporaryFolder scratch;
  InstabilityPlan plan = tiny_plan(scratch / "all");
  plan.connectivity.spawn = {0};
  InstabilityRuns runs(plan);
  ASSERT_TRUE(runs.train());
  const auto distance = [&] {
    return ConnectivityPaths(plan).measure(runs).spawned[0].pairs[0].path.geometry.distance;
  };
  const double measured = distance();
  const fs::path file = runs.folder(1, 0) / "path-copy-1~copy-2.json";
  json saved = json::parse(read_file(file));
  EXPECT_EQ(saved["distance"], measured);
  EXPECT_EQ(saved["engine"], "single");
  saved["distance"] = 42;
  write_file_atomically(file, saved.dump());
  EXPECT_EQ(distance(), 42);  // taken from the file
  plan.connectivity.splits = {"val"};
  EXPECT_EQ(distance(), measured);
  write_file_atomically(file, "{");
  EXPECT_EQ(distance(), measured);
}

TEST(ConnectivityPaths, OfCopiesThatDifferInNothingAreFlat) {
  const testing::TemporaryFolder scratch;
  InstabilityPlan plan = tiny_plan(scratch / "all");
  plan.connectivity.differ = "nothing";
  plan.connectivity.spawn = {3};
  InstabilityRuns runs(plan);
  ASSERT_TRUE(runs.train());
  const PathResult path = ConnectivityPaths(plan).measure(runs).spawned[0].pairs[0].path;
  EXPECT_EQ(path.geometry.distance, 0);
  EXPECT_EQ(path.splits[0].points[0].loss, path.splits[0].points[2].loss);
}

TEST(ConnectivityPaths, RefuseSettingsBeforeAnythingIsTrained) {
  const testing::TemporaryFolder scratch;
  const auto refused = [&](auto change) {
    InstabilityPlan plan = tiny_plan(scratch / "all");
    change(plan);
    return error_of([&] { ConnectivityPaths(plan).check_settings(); });
  };
  const auto rules = [](InstabilityPlan& plan) {
    plan.config.transform = R"([{"match":".*up_proj","kind":"lora","r":2}])";
  };
  EXPECT_EQ(refused([](auto&) {}), "");
  EXPECT_EQ(refused([](auto& p) { p.data.validation = nullptr; }),
            "recipe.toml: there is no validation split; set connectivity.splits = [\"train\"]");
  EXPECT_EQ(refused([&](auto& p) { rules(p), p.connectivity.engine = "batched"; }),
            "connectivity.engine = \"batched\" is for models without [[transform]] rules");
  EXPECT_EQ(refused([&](auto& p) { rules(p), p.connectivity.align = "weights"; }),
            "recipe.toml: connectivity.align = \"weights\" is for models without [[transform]] "
            "rules");
  EXPECT_EQ(refused([](auto& p) {
              p.connectivity.batches = "0";
            }).find("connectivity.batches = \"0\" is neither"),
            0u);
}

TEST(PathPointOptions, FollowTheRecipe) {
  InstabilityPlan plan;
  plan.config.data.context = 16;
  plan.config.train.batch = 5;
  plan.connectivity.batches = "4";
  EXPECT_EQ(path_point_options(plan).context, 16);
  EXPECT_EQ(path_point_options(plan).max_windows, 20);
  EXPECT_EQ(path_point_options(plan).engine, "auto");
  plan.config.transform = R"([{"match":".*","kind":"lora"}])";
  EXPECT_EQ(path_point_options(plan).engine, "single");
  plan.connectivity.pairs = "transforms";  // their merged models are plain
  EXPECT_EQ(path_point_options(plan).engine, "auto");
}

}  // namespace connectivity_paths_test
}  // namespace refract
