#include "train/recipe_names.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>
#include <utility>
#include <vector>

#include "core/files.h"
#include "core/toml.h"
#include "support/errors.h"
#include "support/temporary_folder.h"
#include "train/recipe.h"
#include "train/run_config.h"

namespace refract {
namespace recipe_names_test {

using ::refract::testing::error_of;

class RecipeNames : public ::testing::Test {
 protected:
  RecipeNames() {
    register_recipe_table("expedition", [](const nlohmann::json&, const std::string&) {});
  }
  ~RecipeNames() override { foreign_tables().erase("expedition"); }

  static std::string complaint(const std::string& recipe) {
    return error_of([&] { make_run_config(parse_toml(recipe, "r.toml"), "r.toml"); });
  }
};

TEST_F(RecipeNames, HintsKnowWhatIsNoSetting) {
  const std::vector<std::pair<std::string, std::string>> cases = {
      {"bas = 'x.toml'", "r.toml: unknown key 'bas'; did you mean 'base'?"},
      {"Base = 'x.toml'", "r.toml: unknown key 'Base'; did you mean 'base'?"},
      {"[[expeditoin]]\na = 1", "r.toml: unknown key 'expeditoin'; did you mean 'expedition'?"},
      {"[expeditoin]\na = 1", "r.toml: unknown table [expeditoin]; did you mean [expedition]?"},
      {"[transfrom]\nlegacy = 'a'", "r.toml: unknown table [transfrom]; did you mean [transform]?"},
  };
  for (const auto& [recipe, expected] : cases) EXPECT_EQ(complaint(recipe), expected);
}

TEST_F(RecipeNames, HintsOfSettingsAreAsBefore) {
  const std::vector<std::pair<std::string, std::string>> cases = {
      {"bets = 1", "r.toml: unknown key 'bets'; did you mean 'optimizer.betas'?"},
      {"lr = 1", "r.toml: unknown key 'lr'; did you mean 'optimizer.lr'?"},
      {"[optimzer]\nlr = 1", "r.toml: unknown key 'optimzer.lr'; did you mean 'optimizer.lr'?"},
      {"[[transfrom]]\na = 1", "r.toml: unknown key 'transfrom'; did you mean 'transform'?"},
  };
  for (const auto& [recipe, expected] : cases) EXPECT_EQ(complaint(recipe), expected);
  EXPECT_EQ(complaint("[expedition]\na = 1\n[run]\nseed = 2"), "");
}

// TOML gives every key to the last table before it.
TEST_F(RecipeNames, ABaseBelowATableIsToldWhereToStand) {
  for (const char* table : {"[run]", "[expedition]"}) {
    EXPECT_EQ(complaint(std::string(table).append("\nbase = 'x.toml'")),
              std::string("r.toml: base stands in the table ")
                  .append(table)
                  .append("; move it to the top, before the first table"));
  }
}

TEST_F(RecipeNames, AFolderNamesItsRecipes) {
  const testing::TemporaryFolder folder;
  const auto write = [&](const std::string& name, const std::string& text) {
    write_file_atomically(folder / name, text);
    return (folder / name).string();
  };
  const std::string path = folder.path().string();
  write("facts.toml", "[[published]]\nsource = 'a paper'\n[run]\nseed = 1\n");
  write("rules.toml", "[[transform]]\nmatch = 'a'\nkind = 'none'\n");
  write("broken.toml", "[run\n");
  write("recipe.txt", "[run]\nseed = 1\n");
  std::filesystem::create_directory(folder / "below.toml");
  const std::string start = "'" + path + "' is a folder, and a recipe is a TOML file";
  EXPECT_EQ(error_of([&] { read_recipe(path, {}); }), start);

  std::string expected = start + "; it holds " + write("s1.toml", "base = 'x.toml'\n");
  expected += ", " + write("s2.toml", "[run]\nseed = 1\n");
  expected += ", " + write("s3.toml", "[expedition]\na = 1\n");
  EXPECT_EQ(error_of([&] { read_recipe(path, {}); }), expected);
  write("s4.toml", "[run]\nseed = 1\n");
  EXPECT_EQ(error_of([&] { read_recipe(path, {}); }), expected + ", ...");
}

}  // namespace recipe_names_test
}  // namespace refract
