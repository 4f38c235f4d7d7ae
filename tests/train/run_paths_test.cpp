#include "train/run_paths.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <nlohmann/json.hpp>
#include <string>

#include "support/errors.h"
#include "support/temporary_folder.h"

namespace refract {
namespace run_paths_test {

using nlohmann::json;

TEST(RunPaths, EveryPathOfTheSettingsIsExpanded) {
  ::setenv("REFRACT_TEST_PLACE", "/place", 1);
  const std::string path = "$REFRACT_TEST_PLACE/x";
  json tree = {{"run", {{"dir", path}, {"seed", 1}}},
               {"data",
                {{"path", {path, "stories:1KB"}},
                 {"validation", path},
                 {"tokenizer", path},
                 {"cache", path}}},
               {"init", {{"from", path}, {"adapter", path}}},
               {"eval", {{"prompt", path}}}};
  expand_setting_paths(tree);
  ::unsetenv("REFRACT_TEST_PLACE");
  const json there = "/place/x";
  EXPECT_EQ(tree["run"]["dir"], there);
  EXPECT_EQ(tree["data"], (json{{"path", {there, "stories:1KB"}},
                                {"validation", there},
                                {"tokenizer", there},
                                {"cache", there}}));
  EXPECT_EQ(tree["init"], (json{{"from", there}, {"adapter", there}}));
  EXPECT_EQ(tree["eval"]["prompt"], path);  // a text, not a path
}

TEST(RunPaths, AnEmptyOneIsRefusedWhereOneIsNeeded) {
  for (const auto& [table, key] :
       {std::pair("run", "dir"), std::pair("data", "path"), std::pair("init", "from")}) {
    json tree = {{table, {{key, ""}}}};
    testing::expect_error([&] { expand_setting_paths(tree); },
                          {std::string(table) + "." + key + " is empty"});
  }
  json tree = {{"data", {{"cache", ""}, {"validation", json::array()}}},
               {"init", {{"adapter", ""}}}};
  EXPECT_NO_THROW(expand_setting_paths(tree));
}

TEST(RunPaths, ARecordOfAnotherFormChangesNothing) {
  const testing::TemporaryFolder folder;
  const json settings = {{"data", {{"path", {"a.txt"}}, {"tokenizer", "tok"}}}};
  for (const char* record : {"{\"relative_to\": 3, \"tokenizer_of_model\": \"yes\"}",
                             "{\"relative_to\": [], \"tokenizer_of_model\": 1}", "[1]", "{"}) {
    testing::write_text(folder / "corpus.json", record);
    json tree = settings;
    restore_saved_settings(tree, folder / "config.toml");
    EXPECT_EQ(tree, settings) << record;
    EXPECT_EQ(origin_of(folder.path()), "") << record;
  }
}

TEST(RunPaths, ARunsRelativePathsStartWhereItWasStarted) {
  const testing::TemporaryFolder folder;
  testing::write_text(
      folder / "run/corpus.json",
      json({{"relative_to", folder.path().string()}, {"tokenizer_of_model", true}}).dump());
  testing::write_text(folder / "base/config.json", "{}");
  const json saved = {
      {"run", {{"dir", "run"}}},
      {"data",
       {{"path", {"c.txt", "/d.txt", "stories:1KB"}}, {"tokenizer", "chars"}, {"context", 8}}},
      {"init", {{"from", "base"}, {"adapter", ""}}}};
  for (const char* file : {"run/config.toml", "run/checkpoints/step-00000002/config.toml"}) {
    json tree = saved;
    restore_saved_settings(tree, folder / file);
    EXPECT_EQ(tree["run"]["dir"], folder.str("run"));
    EXPECT_EQ(tree["data"],
              (json{{"path", {folder.str("c.txt"), "/d.txt", "stories:1KB"}}, {"context", 8}}));
    EXPECT_EQ(tree["init"], (json{{"from", folder.str("base")}, {"adapter", ""}}));
  }
  json hub = {{"init", {{"from", "org/name"}}}};  // no folder there: an id
  restore_saved_settings(hub, folder / "run/config.toml");
  EXPECT_EQ(hub["init"]["from"], "org/name");
  json recipe = saved;  // no run's
  restore_saved_settings(recipe, folder / "run/recipe.toml");
  EXPECT_EQ(recipe, saved);
}

}  // namespace run_paths_test
}  // namespace refract
