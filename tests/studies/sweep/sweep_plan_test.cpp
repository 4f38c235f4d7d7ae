#include "studies/sweep/sweep_plan.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <set>

#include "core/files.h"
#include "studies/sweep/sweep.h"
#include "support/errors.h"
#include "support/temporary_folder.h"

namespace refract {
namespace sweep_plan_test {

using nlohmann::json;
using testing::error_of;

constexpr const char* kRecipe = R"(
[run]
dir = "run"
[data]
context = 16
[model]
hidden_size = 32
num_hidden_layers = 2
num_attention_heads = 2
[train]
steps = 60
threads = 3
)";

class SweepPlan : public ::testing::Test {
 protected:
  SweepPlan() { write_file_atomically(scratch_ / "recipe.toml", kRecipe); }
  std::vector<PlannedRun> plan(const std::vector<std::string>& over,
                               const std::vector<std::string>& overrides = {}) const {
    return plan_sweep(recipe(), overrides, keys(over));
  }
  static std::vector<SweptKey> keys(const std::vector<std::string>& over) {
    std::vector<SweptKey> keys;
    for (const std::string& text : over) keys.push_back(parse_swept_key(text));
    return keys;
  }
  std::string recipe() const { return (scratch_ / "recipe.toml").string(); }
  const testing::TemporaryFolder scratch_;
};

TEST(SweptKey, IsCutAtTheCommasBetweenValues) {
  const SweptKey key = parse_swept_key(R"(optimizer.betas=[0.9, 0.95],[0.8,0.9])");
  EXPECT_EQ(key.key, "optimizer.betas");
  EXPECT_EQ(key.values, (std::vector<std::string>{"[0.9, 0.95]", "[0.8,0.9]"}));
  EXPECT_EQ(parse_swept_key(R"(data.path="a,b",c)").values,
            (std::vector<std::string>{"\"a,b\"", "c"}));
  EXPECT_EQ(parse_swept_key("transform=[{rank=1,b={c=2,d=3}}],x").values.size(), 2u);
  EXPECT_NE(error_of([] { parse_swept_key("=1,2"); }).find("write key=value,value"),
            std::string::npos);
  EXPECT_NE(error_of([] { parse_swept_key("a=1,,2"); }).find("a value is empty"),
            std::string::npos);
}

TEST_F(SweepPlan, IsEveryCombinationTheLastKeyFastest) {
  const std::vector<PlannedRun> runs =
      plan({"optimizer.lr=1e-3,1e-2", "run.seed=1,2,3"}, {"train.batch=8"});
  std::vector<std::string> names;
  for (const PlannedRun& planned : runs) names.push_back(planned.run.name);
  EXPECT_EQ(names,
            (std::vector<std::string>{"lr=1e-3,seed=1", "lr=1e-3,seed=2", "lr=1e-3,seed=3",
                                      "lr=1e-2,seed=1", "lr=1e-2,seed=2", "lr=1e-2,seed=3"}));
  EXPECT_EQ(runs[4].overrides,
            (std::vector<std::string>{"train.batch=8", "optimizer.lr=1e-2", "run.seed=2"}));
  EXPECT_EQ(runs[4].run.values, (std::vector<std::string>{"1e-2", "2"}));
  EXPECT_EQ(runs[4].run.state, SweepState::kWaiting);
}

TEST_F(SweepPlan, KeepsWhatMakesARunWhatItIs) {
  const json settings = json::parse(plan({"optimizer.lr=1e-3"}).at(0).run.settings);
  EXPECT_EQ(settings["optimizer"]["lr"], 1e-3);
  EXPECT_EQ(settings["train"], json({{"steps", 60}}));  // the number of threads is no part of it
  EXPECT_EQ(settings["run"], json::object());           // nor is the folder
}

TEST_F(SweepPlan, NamesFoldersThatAFileSystemTakes) {
  EXPECT_EQ(plan({R"(data.path="a b/c.txt")"})[0].run.name, "path=ab_c.txt");
  std::string longer(200, 'x');
  const std::vector<PlannedRun> two = plan({"data.path=" + longer + "1," + longer + "2"});
  EXPECT_EQ(two[0].run.name.size(), 120u);
  EXPECT_NE(two[0].run.name, two[1].run.name);
  EXPECT_EQ(error_of([&] { plan({"data.path=a/b,a_b"}); }),
            "two runs of the sweep would be named 'path=a_b'");
}

TEST_F(SweepPlan, RefusesARunThatCanNotBe) {
  EXPECT_EQ(error_of([&] { plan({"model.hidden_size=32,33"}); }).find("run 'hidden_size=33': "),
            0u);
  EXPECT_NE(error_of([&] { plan({"optimizer.lrr=1"}); }).find("did you mean 'optimizer.lr'?"),
            std::string::npos);
  EXPECT_NE(error_of([&] { plan({"train.steps=0"}); }).find("set train.steps or train.tokens"),
            std::string::npos);
  EXPECT_EQ(error_of([&] {
              plan({"run.seed=1", "run.seed=2"});
            }),
            "--over run.seed is given twice");
  EXPECT_EQ(error_of([&] { plan({"run.seed=1,1"}); }), "--over run.seed: 1 is given twice");
}

TEST_F(SweepPlan, IsAddedToWhatTheFolderHolds) {
  const std::filesystem::path folder = scratch_ / "sweep";
  std::filesystem::create_directories(folder);
  SweepRecord first = merge_sweep(folder, recipe(), keys({"run.seed=1,2"}), plan({"run.seed=1,2"}));
  first.runs[1].state = SweepState::kFinished;
  write_sweep(folder, first);
  const SweepRecord more =
      merge_sweep(folder, recipe(), keys({"run.seed=2,3"}), plan({"run.seed=2,3"}));
  ASSERT_EQ(more.runs.size(), 3u);
  EXPECT_EQ(more.runs[1].name, "seed=2");
  EXPECT_EQ(more.runs[1].state, SweepState::kFinished);
  EXPECT_EQ(more.runs[2].name, "seed=3");
  EXPECT_EQ(more.runs[2].state, SweepState::kWaiting);
}

TEST_F(SweepPlan, RefusesAFolderOfOtherSettings) {
  const std::filesystem::path folder = scratch_ / "sweep";
  std::filesystem::create_directories(folder);
  write_sweep(folder, merge_sweep(folder, recipe(), keys({"run.seed=1"}), plan({"run.seed=1"})));
  const auto merge = [&](const std::string& over, const std::vector<std::string>& overrides) {
    return error_of([&] { merge_sweep(folder, recipe(), keys({over}), plan({over}, overrides)); });
  };
  EXPECT_EQ(merge("run.seed=1", {}), "");
  EXPECT_EQ(merge("run.seed=1", {"train.threads=1", "run.dir=elsewhere"}), "");
  EXPECT_NE(merge("run.seed=1", {"train.steps=6"}).find("with other settings (/train/steps)"),
            std::string::npos);
  EXPECT_NE(merge("optimizer.lr=1", {}).find("already holds a sweep over run.seed"),
            std::string::npos);
}

TEST_F(SweepPlan, BecomesTheArgumentsOfEachRun) {
  SweepStudy study;
  study.recipe = recipe();
  study.jobs = 1000000;  // more than cores
  const PlannedRun run = plan({"run.seed=2"}, {"train.batch=8"})[0];
  const std::vector<std::string> arguments = sweep_arguments(study, run, "a \"b\"");
  EXPECT_EQ(arguments,
            (std::vector<std::string>{"train", recipe(), "train.batch=8", "run.seed=2",
                                      R"(run.dir="a \"b\"/seed=2")", "--resume", "--json"}));
  // A recipe that does not say how many threads a run takes gets a share of the cores.
  std::string without = kRecipe;
  without.erase(without.find("threads = 3"));
  write_file_atomically(scratch_ / "recipe.toml", without);
  EXPECT_EQ(sweep_arguments(study, run, "x").at(5), "train.threads=1");
  study.jobs = 1;
  EXPECT_EQ(sweep_arguments(study, run, "x").at(5), "--resume");
}

}  // namespace sweep_plan_test
}  // namespace refract
