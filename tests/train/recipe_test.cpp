#include "train/recipe.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>

#include "core/error.h"
#include "core/files.h"
#include "core/toml.h"
#include "support/errors.h"
#include "support/temporary_folder.h"
#include "train/run_config.h"

namespace refract {
namespace recipe_test {

namespace fs = std::filesystem;
using nlohmann::json;

class RecipeTest : public ::testing::Test {
 protected:
  std::string write(const std::string& name, const std::string& text) {
    const fs::path path = folder_ / name;
    fs::create_directories(path.parent_path());
    write_file_atomically(path, text);
    return path.string();
  }
  // What reading a recipe complains of, which is one line and a usage error.
  static std::string complaint(const std::string& path) {
    try {
      read_recipe(path, {});
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ExitCode::kUsage) << error.what();
      EXPECT_EQ(std::string(error.what()).find('\n'), std::string::npos) << error.what();
      return error.what();
    }
    return "";
  }
  static void expect_names(const std::string& complaint, const std::vector<std::string>& parts) {
    for (const std::string& part : parts)
      EXPECT_NE(complaint.find(part), std::string::npos) << part << " in: " << complaint;
  }

  testing::TemporaryFolder folder_;
};

TEST_F(RecipeTest, MergesItsOwnKeysOverTheBase) {
  write("dense.toml", R"(
[run]
dir = "runs/dense"
seed = 3
[optimizer]
lr = 1e-3
betas = [0.9, 0.95]
[[transform]]
match = "a"
kind = "low_rank"
rank = 4
[[transform]]
match = "b"
kind = "none"
)");
  const std::string path = write("wide.toml", R"(
base = "dense.toml"
[run]
dir = "runs/wide"
[optimizer]
betas = [0.5, 0.75]
[[transform]]
match = "c"
kind = "optical"
)");
  EXPECT_EQ(read_recipe(path, {}), parse_toml(R"(
[run]
dir = "runs/wide"
seed = 3
[optimizer]
lr = 1e-3
betas = [0.5, 0.75]
[[transform]]
match = "c"
kind = "optical"
)",
                                              "expected"));
}

TEST_F(RecipeTest, BasesHaveBasesAndOverridesComeLast) {
  write("first.toml", "[train]\nsteps = 1\nbatch = 1\nmicro_batch = 1\n[eval]\nevery = 1\n");
  write("parts/second.toml", "base = \"../first.toml\"\n[train]\nbatch = 2\nmicro_batch = 2\n");
  const std::string path = write(
      "third.toml", "base = \"parts/second.toml\"\n[train]\nmicro_batch = 3\n[log]\nevery = 3\n");
  EXPECT_EQ(read_recipe(path, {"log.every=4", "eval.samples=4"}),
            parse_toml("[train]\nsteps = 1\nbatch = 2\nmicro_batch = 3\n[log]\nevery = 4\n"
                       "[eval]\nevery = 1\nsamples = 4\n",
                       "expected"));
}

TEST_F(RecipeTest, OverridesReachIntoTheRulesOfABase) {
  write("rules.toml", "[[transform]]\nmatch = \"a\"\nkind = \"low_rank\"\nrank = 4\n");
  const std::string path = write("derived.toml", "base = \"rules.toml\"\n");
  EXPECT_EQ(read_recipe(path, {"transform.0.rank=8"})["transform"],
            json::parse(R"([{"match": "a", "kind": "low_rank", "rank": 8}])"));
}

TEST_F(RecipeTest, ARuleFileTakesThePlaceOfAllRules) {
  const std::string path = write("a.toml", "[[transform]]\nmatch = \"x\"\n[[transform]]\n");
  const json expected = {{"transform", {{"legacy", "rules.yaml"}}}};
  EXPECT_EQ(read_recipe(path, {"transform.legacy=rules.yaml"}), expected);
  const std::string derived =
      write("b.toml", "base = \"a.toml\"\n[transform]\nlegacy = \"rules.yaml\"\n");
  EXPECT_EQ(read_recipe(derived, {}), expected);
  EXPECT_EQ(overrides_tree({"transform.legacy=rules.yaml"}), expected);
  EXPECT_THROW(read_recipe(path, {"transform.legacy.file=rules.yaml"}), Error);
}

TEST_F(RecipeTest, RulesAreReplacedWhateverTheirForm) {
  write("rules.toml", "[[transform]]\nmatch = \"a\"\nkind = \"none\"\n");
  const std::string none = write("none.toml", "base = \"rules.toml\"\ntransform = []\n");
  EXPECT_EQ(read_recipe(none, {})["transform"], json::array());
  const std::string legacy =
      write("legacy.toml", "base = \"rules.toml\"\n[transform]\nlegacy = \"old.yaml\"\n");
  EXPECT_EQ(read_recipe(legacy, {})["transform"], json({{"legacy", "old.yaml"}}));
}

TEST_F(RecipeTest, ACircleOfBasesIsAnError) {
  const std::string a = write("a.toml", "base = \"b.toml\"\n");
  const std::string b = write("b.toml", "base = \"a.toml\"\n");
  expect_names(complaint(a), {b + ": its base '" + a + "'", a + " -> " + b + " -> " + a});
  const std::string own = write("own.toml", "base = \"./own.toml\"\n");
  expect_names(complaint(own), {own + ": its base '", "./own.toml' derives from it"});
}

TEST_F(RecipeTest, AMissingBaseIsAnError) {
  const std::string path = write("a.toml", "base = \"b.toml\"\n");
  expect_names(complaint(path),
               {path + ": can't open its base '" + (folder_ / "b.toml").string(), "No such file"});
}

TEST_F(RecipeTest, ABaseThatIsNotARecipeIsAnError) {
  const std::string number = write("number.toml", "base = 5\n");
  expect_names(complaint(number), {number + ": base takes the path of a recipe, as text, not 5"});
  const std::string empty = write("empty.toml", "base = \"\"\n");
  expect_names(complaint(empty), {empty + ": its base '", "' is not a file"});
  const std::string bytes = write("bytes.toml", "\x7f\x45LF\x02\xff\xfe");
  const std::string path = write("a.toml", "base = \"bytes.toml\"\n");
  expect_names(complaint(path), {path + ": its base is wrong: '" + bytes, "it is a program (ELF)"});
}

TEST_F(RecipeTest, ALongBaseIsNotRepeatedInFull) {
  const std::string longest(9000, 'b');
  for (const std::string& base :
       {"'" + longest + "'", "'/" + longest + "'", "{" + longest + " = 1}"}) {
    const std::string path = write("a.toml", "base = " + base + "\n");
    const std::string text = complaint(path);
    expect_names(text, {path, "more bytes)"});
    EXPECT_LT(text.size(), 1000u) << text;
  }
}

TEST_F(RecipeTest, ABaseOutsideOfTheFolderIsAnError) {
  const std::string outer = write("outer.toml", "[run]\nseed = 5\n");
  const std::string up = write("recipes/up.toml", "base = \"../outer.toml\"\n");
  expect_names(complaint(up), {up + ": its base '", "outer.toml' lies outside of"});
  const std::string absolute = write("recipes/absolute.toml", "base = \"" + up + "\"\n");
  expect_names(complaint(absolute), {absolute + ": its base '" + up + "' is an absolute path"});

  fs::create_symlink(outer, folder_ / "recipes/link.toml");
  const std::string linked = write("recipes/linked.toml", "base = \"link.toml\"\n");
  expect_names(complaint(linked), {linked, "link.toml' lies outside of"});

  // It is the folder of the recipe that was asked for that counts, not that of a base.
  const std::string inner = write("recipes/below/inner.toml", "base = \"../middle.toml\"\n");
  write("recipes/middle.toml", "[run]\nseed = 6\n");
  expect_names(complaint(inner), {inner, "middle.toml' lies outside of"});
  const std::string top = write("recipes/top.toml", "base = \"below/inner.toml\"\n");
  EXPECT_EQ(read_recipe(top, {}), json({{"run", {{"seed", 6}}}}));
}

TEST_F(RecipeTest, ALinkWithinTheFolderIsFollowed) {
  const std::string real = write("real.toml", "[run]\nseed = 7\n");
  fs::create_symlink(real, folder_ / "link.toml");
  const std::string path = write("a.toml", "base = \"link.toml\"\n");
  EXPECT_EQ(read_recipe(path, {}), json({{"run", {{"seed", 7}}}}));
}

TEST_F(RecipeTest, AnOverrideIsReadByTheTypeOfItsKey) {
  const auto value = [](const std::string& text) {
    const std::string key = text.substr(0, text.find('='));
    std::string pointer = "/" + key;
    std::replace(pointer.begin(), pointer.end(), '.', '/');
    return overrides_tree({text}).at(json::json_pointer(pointer));
  };
  for (const char* typed :
       {"67217e15", "1.10", "0x1f", "true", "10 #1", "2024-11-30", "[1]", "{a=1}"}) {
    EXPECT_EQ(value(std::string("run.dir=") + typed), json(typed));
    EXPECT_EQ(value(std::string("data.path=") + typed), json(typed));
    EXPECT_EQ(value(std::string("optimizer.name=") + typed), json(typed));
  }
  EXPECT_EQ(value("eval.prompt=\"1\\n\""), json("1\n"));
  EXPECT_EQ(value("eval.prompt='a' 'b'"), json("'a' 'b'"));
  EXPECT_EQ(value("data.path=[\"1\", '2']"), json({"1", "2"}));
  EXPECT_EQ(value("train.steps=1e3"), json(1e3));
  EXPECT_EQ(value("train.deterministic=true"), json(true));
  EXPECT_EQ(value("optimizer.betas=[0, 1]"), json({0, 1}));
  EXPECT_THROW(overrides_tree({"run.dir=caf\xe9"}), Error);
}

TEST_F(RecipeTest, ABaseIsNoSettingOfARun) {
  const std::string path = write("a.toml", "[run]\nseed = 7\n");
  EXPECT_THROW(read_recipe(path, {"base=b.toml"}), Error);
  EXPECT_THROW(make_run_config(json({{"base", "b.toml"}}), "t"), Error);
}

}  // namespace recipe_test
}  // namespace refract
