#include "studies/connectivity/instability_runs.h"

#include <gtest/gtest.h>

#include "core/files.h"
#include "runs/plan.h"
#include "studies/connectivity/tiny_plan.h"
#include "support/errors.h"
#include "support/temporary_folder.h"
#include "train/checkpoints/checkpoints.h"

namespace refract {
namespace instability_runs_test {

namespace fs = std::filesystem;
using testing::error_of;

TEST(InstabilityRuns, PlansCopiesThatDifferInOrderAndNoise) {
  const testing::TemporaryFolder scratch;
  InstabilityPlan plan = tiny_plan(scratch / "all");
  plan.connectivity.seeds = {7};
  const InstabilityRuns runs(plan);
  EXPECT_EQ(runs.seeds(), (std::vector<int64_t>{7}));
  EXPECT_EQ(runs.folder(7, 3), scratch / "all" / "seed-7" / "spawn-00000003");
  const std::vector<Member> members = runs.members(7, 3);
  ASSERT_EQ(members.size(), 2u);
  EXPECT_EQ(members[1].name, "copy-2");
  EXPECT_EQ(members[1].config.run.dir, runs.folder(7, 3) / "copy-2");
  EXPECT_EQ(members[1].config.run.seed, 7);
  EXPECT_EQ(members[1].config.data.order_seed, 8002);
  EXPECT_EQ(members[1].config.run.noise_seed, 8002);
  EXPECT_EQ(members[0].config.data.order_seed, 8001);
  plan.connectivity.differ = "noise";
  EXPECT_EQ(InstabilityRuns(plan).members(7, 3)[0].config.data.order_seed, -1);
  EXPECT_EQ(InstabilityRuns(plan).members(7, 3)[0].config.run.noise_seed, 8001);
}

// N is the base model's: with its own, a variant of fewer parameters would end earlier.
TEST(InstabilityRuns, VariantsOfOtherSizesTrainForAsManySteps) {
  const testing::TemporaryFolder scratch;
  InstabilityPlan plan = tiny_plan(scratch / "all");
  plan.source = "a model";
  plan.config.train.steps = 0;
  plan.config.train.tokens = "N/2";
  plan.connectivity.pairs = "transforms";
  plan.connectivity.spawn = {0};
  plan.connectivity.variant =
      R"([{"name": "dense"}, {"name": "thin", "transform": [{"match": ".*(up|down)_proj", "kind": "low_rank", "rank": 2}]}])";
  const std::vector<Member> members = InstabilityRuns(plan).members(7, 0);
  ASSERT_EQ(members.size(), 2u);
  std::vector<int64_t> sizes, steps;
  for (const Member& member : members) {
    RunConfig config = member.config;
    sizes.push_back(plan_model(config, "the test").decoder->arena().count());
    steps.push_back(resolve_steps(config, sizes.back()));
  }
  EXPECT_LT(sizes[1], sizes[0]);
  EXPECT_GT(steps[0], 1);
  EXPECT_EQ(steps[0], steps[1]);
}

TEST(InstabilityRuns, RefusesPlansThatCanNotBe) {
  const testing::TemporaryFolder scratch;
  const auto refused = [&](auto change) {
    InstabilityPlan plan = tiny_plan(scratch / "all");
    change(plan);
    return error_of([&] { const InstabilityRuns runs(plan); });
  };
  EXPECT_EQ(refused([](auto& p) {
              p.connectivity.spawn = {0, 6};
            }),
            "recipe.toml: connectivity.spawn has 6, but a run is only 6 steps long");
  EXPECT_EQ(refused([](auto& p) { p.connectivity.pairs = "fine_tune"; }),
            "recipe.toml: connectivity.pairs = \"fine_tune\" needs init.from, the model that is "
            "tuned");
  EXPECT_EQ(refused([](auto& p) { p.config.train.steps = 0; }),
            "recipe.toml: set train.steps or train.tokens");
}

// The error of check_folders() under other settings.
template <class Change>
std::string checked(const fs::path& folder, Change change) {
  InstabilityPlan plan = tiny_plan(folder);
  change(plan);
  return error_of([&] { InstabilityRuns(plan).check_folders(); });
}
void nothing(InstabilityPlan& plan) { plan.config.log.every = 5; }  // decides over no run

TEST(InstabilityRuns, TrainsAndThenKnowsItsFolders) {
  const testing::TemporaryFolder scratch;
  const fs::path folder = scratch / "all";
  EXPECT_EQ(checked(folder, nothing), "");  // there is nothing yet
  InstabilityRuns runs(tiny_plan(folder));
  ASSERT_TRUE(runs.train());
  EXPECT_EQ(Checkpoints(folder / "seed-1" / "trunk").steps(), (std::vector<int64_t>{3}));
  for (const char* copy : {"spawn-00000000/copy-1", "spawn-00000003/copy-2"})
    EXPECT_EQ(Checkpoints(folder / "seed-1" / copy).newest(), 6) << copy;
  EXPECT_EQ(checked(folder, nothing), "");

  const std::string other = checked(folder, [](auto& p) { p.config.optimizer.lr = 0.5; });
  EXPECT_NE(other.find("'" + (folder / "seed-1" / "trunk").string() +
                       "' holds a run with other settings (the first that differs: /optimizer/lr)"),
            std::string::npos)
      << other;
  const std::string order = checked(folder, [](auto& p) { p.connectivity.differ = "noise"; });
  EXPECT_NE(order.find("/data/order_seed"), std::string::npos) << order;
}

TEST(InstabilityRuns, NamesADamagedRun) {
  const testing::TemporaryFolder scratch;
  const fs::path folder = scratch / "all";
  InstabilityRuns runs(tiny_plan(folder));
  ASSERT_TRUE(runs.train());
  const fs::path copy = runs.folder(1, 3) / "copy-2";
  const fs::path weights = Checkpoints(copy).path(6) / "model.safetensors";
  const std::string remedy = "remove '" + copy.string() + "' to train that run again";
  write_file_atomically(weights, "abc");
  const std::string torn = checked(folder, nothing);
  EXPECT_NE(torn.find("has 3 bytes; " + remedy), std::string::npos) << torn;
  fs::remove(weights);
  const std::string missing = checked(folder, nothing);
  EXPECT_NE(missing.find("has no model.safetensors; " + remedy), std::string::npos) << missing;
}

}  // namespace instability_runs_test
}  // namespace refract
