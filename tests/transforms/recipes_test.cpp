// Every recipe of recipes/: it is whole, and those of recipes/structured/ as they would run,
// planned and not allocated.
#include <gtest/gtest.h>

#include <filesystem>
#include <nlohmann/json.hpp>

#include "core/error.h"
#include "core/toml.h"
#include "train/run_config.h"
#include "train/self_guided.h"
#include "transforms/model_builder.h"

namespace refract {
namespace recipes_test {

namespace fs = std::filesystem;

struct Planned {
  explicit Planned(const std::string& path) : config(make_run_config(read_recipe(path, {}), path)) {
    const int64_t characters = config.model.preset.empty() ? 64 : 0;  // of the small ones' corpus
    resolve(config.model, characters, config.data.context);
    model = build_model(config.model, config.transform, path, config.self_guided.mode != "none");
  }
  int64_t parameters() const { return model.decoder->arena().count(); }
  RunConfig config;
  TransformedModel model;
};

std::vector<std::string> recipes(const std::string& folder = "recipes/structured") {
  std::vector<std::string> all;
  for (const auto& entry : fs::recursive_directory_iterator(folder)) {
    const fs::path& path = entry.path();  // of these, published.toml is no recipe
    if (path.extension() == ".toml" && path.stem() != "published") all.push_back(path.string());
  }
  std::sort(all.begin(), all.end());
  return all;
}

bool has(const std::string& text, const char* part) { return text.find(part) != std::string::npos; }

// The share of its dense parameters that a run's rule leaves.
double share(const Planned& planned) {
  const PlanRow& row = planned.model.plan.at(0);
  return static_cast<double>(row.parameters) / static_cast<double>(row.dense_parameters);
}

nlohmann::json without_study(nlohmann::json tree) {
  tree.erase("connectivity");  // not a run's
  return tree;
}

TEST(Recipes, AreWholeWithTheirBases) {
  const std::vector<std::string> all = recipes("recipes");
  EXPECT_GT(all.size(), 70U);
  for (const std::string& path : all) {
    SCOPED_TRACE(path);
    const nlohmann::json tree = read_recipe(path, {});
    EXPECT_FALSE(tree.contains("base"));
    const RunConfig config = make_run_config(without_study(tree), path);
    EXPECT_EQ(fs::path(config.run.dir).filename(), fs::path(path).stem());
    EXPECT_TRUE(config.train.steps > 0 || !config.train.tokens.empty() || config.train.minutes > 0);
  }
}

// As `refract inspect RECIPE --toml` prints it.
TEST(Recipes, PrintedReadBackAsTheSame) {
  for (const std::string& path : recipes("recipes")) {
    SCOPED_TRACE(path);
    const nlohmann::json tree = read_recipe(path, {});
    const nlohmann::json again = parse_toml(to_toml(tree), path);
    EXPECT_EQ(again, tree);
    EXPECT_EQ(to_toml(make_run_config(without_study(again), path)),
              to_toml(make_run_config(without_study(tree), path)));
  }
}

TEST(StructuredRecipes, AllOfThemPlan) {
  const std::vector<std::string> all = recipes();
  EXPECT_EQ(all.size(), 4u * (1 + 3 * 3) + 6 + 6 + 3);
  for (const std::string& path : all) {
    SCOPED_TRACE(path);
    const Planned planned(path);
    const int64_t steps = resolve_steps(planned.config, planned.parameters());
    EXPECT_GT(steps, 100);
    EXPECT_EQ(planned.config.run.dir, "runs/structured/" + fs::path(path).stem().string());
    const SelfGuidedPlan plan(planned.config, steps);
    EXPECT_EQ(plan.guided_steps() > 0, has(path, "guided"));
  }
}

TEST(StructuredRecipes, KeepTheSharesOfParametersThatTheyAreNamedAfter) {
  for (const std::string& path : recipes()) {
    SCOPED_TRACE(path);
    const Planned planned(path);
    const bool structured = !planned.model.rules.empty();
    EXPECT_EQ(structured, !has(path, "dense.toml") && !has(path, "gqa"));
    if (!structured) continue;
    // All but the first layer's two matrices.
    EXPECT_EQ(planned.model.plan[0].modules.size(),
              static_cast<size_t>(2 * (planned.config.model.num_hidden_layers - 1)));
    // 5/8 and 5/16 for LowRank and BlockShuffle; BlockDense's ranks come within 4 points of it.
    if (has(path, "-63")) {
      EXPECT_NEAR(share(planned), 0.625, 0.04);
    }
    if (has(path, "-32")) {
      EXPECT_NEAR(share(planned), 0.3125, 0.02);
    }
  }
}

TEST(StructuredRecipes, WideModelsAreSmallerThanTheirCounterparts) {
  for (const std::string size : {"m", "l"}) {
    const Planned wide("recipes/structured/" + size + "-wide-structured.toml");
    const Planned gqa("recipes/structured/" + size + "-gqa.toml");
    EXPECT_EQ(wide.config.model.intermediate_size, gqa.config.model.intermediate_size);
    EXPECT_EQ(wide.config.model.attention_width(), wide.config.model.hidden_size / 2);
    EXPECT_LT(wide.parameters(), gqa.parameters());
  }
}

}  // namespace recipes_test
}  // namespace refract
