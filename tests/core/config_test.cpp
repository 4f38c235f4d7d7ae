#include "core/config.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstdint>
#include <limits>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "core/toml.h"
#include "support/errors.h"

namespace refract {
namespace config_test {

struct Settings {
  double lr = 1e-3;
  int64_t steps = 10;
  bool fast = false;
  std::string kind = "cosine", batches = "all";
  std::vector<double> betas = {0.9, 0.95};
};

class FieldsTest : public ::testing::Test {
 protected:
  FieldsTest() {
    fields.add({"optimizer.lr", Decides::kOutcome}, s.lr, "peak learning rate",
               {.min = 0, .open_min = true});
    fields.add({"train.steps", Decides::kOutcome}, s.steps, "steps", {.min = 1, .max = 100});
    fields.add({"train.fast", Decides::kOutcome}, s.fast, "speed");
    fields.add({"schedule.kind", Decides::kOutcome}, s.kind, "shape", {"cosine", "linear"});
    fields.add({"eval.batches", Decides::kNothing}, s.batches, "how many");
    fields.add({"optimizer.betas", Decides::kFunction}, s.betas, "moments");
  }
  // The message of the error that setting a key raises.
  std::string complaint(const std::string& key, const nlohmann::json& value) {
    return testing::usage_error_of([&] { fields.set(key, value, "recipe.toml"); });
  }
  Settings s;
  Fields fields;
};

TEST_F(FieldsTest, SetsTypedValues) {
  fields.set_all(
      parse_toml("[optimizer]\nlr = 2\nbetas = [0.5, 0.75]\n[train]\nsteps = 1e2\nfast = true\n"
                 "[eval]\nbatches = 7\n",
                 "t"),
      "t");
  EXPECT_EQ(s.lr, 2.0);
  EXPECT_EQ(s.steps, 100);
  EXPECT_TRUE(s.fast);
  EXPECT_EQ(s.batches, "7");
  EXPECT_EQ(s.betas, (std::vector<double>{0.5, 0.75}));
}

TEST_F(FieldsTest, UnknownKeyNamesTheNearest) {
  EXPECT_EQ(complaint("optimizer.lrr", 1),
            "recipe.toml: unknown key 'optimizer.lrr'; did you mean 'optimizer.lr'?");
  EXPECT_NE(complaint("lr", 1).find("'optimizer.lr'"), std::string::npos);
}

TEST_F(FieldsTest, WrongTypesAndRangesSayWhatWouldDo) {
  EXPECT_EQ(complaint("train.steps", "many"),
            "recipe.toml: train.steps takes an integer, not \"many\"");
  EXPECT_EQ(complaint("train.steps", 2.5), "recipe.toml: train.steps takes an integer, not 2.5");
  EXPECT_EQ(complaint("train.steps", 101),
            "recipe.toml: train.steps = 101 is out of range: it must be >= 1, <= 100");
  EXPECT_EQ(complaint("optimizer.lr", 0),
            "recipe.toml: optimizer.lr = 0 is out of range: it must be > 0");
  EXPECT_NE(complaint("schedule.kind", "cosin").find("did you mean \"cosine\"?"),
            std::string::npos);
  EXPECT_EQ(s.steps, 10);  // a refused value changes nothing
}

TEST_F(FieldsTest, WrittenTomlReadsBackEqual) {
  fields.set("optimizer.lr", 0.1 + 0.2, "t");
  fields.set("eval.batches", "back\\slash 'and' \"quotes\"", "t");
  const nlohmann::json tree = fields.to_json();
  EXPECT_EQ(parse_toml(to_toml(tree), "t"), tree);
}

TEST_F(FieldsTest, EverySettingSaysWhatItDecides) {
  EXPECT_EQ(fields.find("eval.batches")->decides, Decides::kNothing);
  EXPECT_EQ(fields.find("optimizer.lr")->decides, Decides::kOutcome);
  int64_t rank = 4;  // of a kind: a part of [[transform]]
  fields.add("rank", rank, "inner width");
  EXPECT_EQ(fields.find("rank")->decides, Decides::kFunction);
}

TEST_F(FieldsTest, ATreeIsCutToWhatDecides) {
  const nlohmann::json tree = {
      {"optimizer", {{"lr", 1}, {"betas", {0.5, 0.75}}}},
      {"eval", {{"batches", "all"}}},
      {"train", {{"steps", 3}, {"unknown", true}}},
      {"other", "stays"},
      {"schedule", {{"kind", "linear"}}},
  };
  EXPECT_EQ(fields.deciding(tree, Decides::kNothing), tree);
  nlohmann::json outcome = tree;
  outcome.erase("eval");  // nothing else was in it
  EXPECT_EQ(fields.deciding(tree, Decides::kOutcome), outcome);
  EXPECT_EQ(fields.deciding(tree, Decides::kFunction),
            nlohmann::json({{"optimizer", {{"betas", {0.5, 0.75}}}},
                            {"train", {{"unknown", true}}},
                            {"other", "stays"}}));
}

TEST_F(FieldsTest, HelpNamesEveryKey) {
  const std::string help = fields.help_text();
  for (const Field& field : fields.all())
    EXPECT_NE(help.find(field.key), std::string::npos) << field.key;
  EXPECT_NE(help.find("cosine | linear"), std::string::npos);
}

TEST_F(FieldsTest, NumbersAreFinite) {
  const double infinity = std::numeric_limits<double>::infinity();
  EXPECT_EQ(complaint("optimizer.lr", infinity),
            "recipe.toml: optimizer.lr = inf is out of range: it must be a finite number, > 0");
  EXPECT_NE(complaint("optimizer.lr", std::nan("")).find("finite"), std::string::npos);
  EXPECT_NE(complaint("optimizer.betas", {0.9, -infinity}).find("finite"), std::string::npos);
  EXPECT_EQ(s.betas, (std::vector<double>{0.9, 0.95}));
}

TEST_F(FieldsTest, ANumberThatHasSeveralSpellingsIsNoText) {
  fields.set("eval.batches", 1e9, "t");
  EXPECT_EQ(s.batches, "1000000000");
  fields.set("eval.batches", true, "t");
  EXPECT_EQ(s.batches, "true");
  EXPECT_EQ(complaint("eval.batches", 1.1),
            "recipe.toml: eval.batches takes text, not the number 1.1: put it in quotes");
  EXPECT_NE(complaint("eval.batches", 6.7217e19).find("in quotes"), std::string::npos);
}

TEST(Override, ReadsTomlOrPlainText) {
  EXPECT_EQ(parse_override("a.b=1e-4").second, nlohmann::json(1e-4));
  EXPECT_EQ(parse_override("a.b=[1, 2]").second, nlohmann::json({1, 2}));
  EXPECT_EQ(parse_override("data.path=../x y.txt").second, nlohmann::json("../x y.txt"));
  EXPECT_EQ(parse_override("a=\"5\"").second, nlohmann::json("5"));
  EXPECT_THROW(parse_override("novalue"), Error);
}

TEST(Override, TheWholeOfItIsTheValue) {
  for (const char* text :
       {"10 #1", "5\nb = 6", "1, 2", "1,", "[1], b = [2", "1]", "", "2 3", "12:30:00"})
    EXPECT_EQ(parse_override(std::string("a=") + text).second, nlohmann::json(text)) << text;
  EXPECT_EQ(parse_override("a=[{m='x#y'}]").second, nlohmann::json::parse(R"([{"m":"x#y"}])"));
}

TEST(Override, NumbersAsPeopleWriteThem) {
  EXPECT_EQ(parse_override("a=.5").second, nlohmann::json(0.5));
  EXPECT_EQ(parse_override("a=+5.").second, nlohmann::json(5.0));
  EXPECT_EQ(parse_override("a=007").second, nlohmann::json(7));
  EXPECT_TRUE(parse_override("a=1e-3x").second.is_string());
  EXPECT_TRUE(parse_override("a=-").second.is_string());
}

}  // namespace config_test
}  // namespace refract
