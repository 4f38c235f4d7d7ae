#include "transforms/rules.h"

#include <gtest/gtest.h>

#include "support/errors.h"
#include "transforms/model_builder.h"

namespace refract {
namespace rules_test {

using testing::has;

ModelConfig small() {
  ModelConfig config;
  config.hidden_size = 32;
  config.num_hidden_layers = 2;
  config.num_attention_heads = 2;
  resolve(config, 65, 8);
  return config;
}

std::string message_of(const std::string& rules) {
  return testing::usage_error_of([&] { build_model(small(), rules, "recipe.toml"); });
}

TEST(RulesTest, TheFirstMatchWinsAndMatchesTheWholeName) {
  const TransformedModel model = build_model(small(), R"([
    {"match": "model\\.layers\\.0\\..*_proj", "kind": "none"},
    {"match": ".*up_proj", "kind": "lora", "r": 2}])",
                                             "test");
  ASSERT_EQ(model.plan.size(), 3u);
  EXPECT_EQ(model.plan[0].modules.size(), 6u);
  EXPECT_EQ(model.plan[1].modules, std::vector<std::string>{"model.layers.1.mlp.up_proj"});
  EXPECT_EQ(model.plan[1].dense_parameters, 32 * 128);
  EXPECT_EQ(model.plan[1].parameters, 32 * 128 + 2 * (32 + 128));
  EXPECT_EQ(model.plan[2].modules.size(), 7u);  // 6 linear layers of layer 1 but one, 2 attentions
  EXPECT_EQ(model.rules.find("model.layers.1.mlp.up_proj.weight"), -1);
}

TEST(RulesTest, OnlyAnAdaptersParametersAreTrainedBesideOne) {
  const TransformedModel model =
      build_model(small(), R"([{"match": ".*q_proj", "kind": "lora", "r": 2}])", "test");
  EXPECT_EQ(model.decoder->arena().trainable_count(), 2 * 2 * (32 + 32));
}

TEST(RulesTest, EveryMistakeIsOneLineThatSaysWhere) {
  EXPECT_TRUE(
      has(message_of(R"([{"match": "x", "kind": "lora"}])"), "rule 1 ('x') matches no module"));
  EXPECT_TRUE(
      has(message_of(
              R"([{"match": ".*_proj", "kind": "none"}, {"match": ".*up_proj", "kind": "lora"}])"),
          "rule 2"));
  EXPECT_TRUE(has(message_of(R"([{"match": ".*", "kind": "lra"}])"), "did you mean \"lora\""));
  EXPECT_TRUE(has(message_of(R"([{"match": ".*_proj", "kind": "lora", "rank": 2}])"),
                  "unknown key 'rank'"));
  EXPECT_TRUE(has(message_of(R"([{"match": ".*_proj", "kind": "lora", "r": 0}])"),
                  "r = 0 is out of range"));
  EXPECT_TRUE(has(message_of(R"([{"match": ".*", "kind": "lora"}])"), "can't stand for attention"));
  EXPECT_TRUE(has(message_of(R"([{"match": "(", "kind": "lora"}])"), "not a regular expression"));
  EXPECT_TRUE(has(message_of(R"([{"kind": "lora"}])"), "'match' is missing"));
  EXPECT_TRUE(has(message_of(R"([{"match": ".*"}])"), "'kind' is missing"));
  EXPECT_TRUE(
      has(message_of(R"([{"match": ".*", "kind": "none", "r": 1}])"), "has no parameter 'r'"));
  EXPECT_TRUE(has(message_of(R"({"match": ".*"})"), "array of tables"));
}

TEST(RulesTest, WhatIsWrittenReadsBackTheSame) {
  const std::string text =
      R"([{"kind":"lora","match":".*up_proj","over":{"kind":"lora","r":3},"r":2}])";
  const Rules rules = Rules::parse(text, "test");
  EXPECT_EQ(rules.to_json(), text);
  EXPECT_EQ(Rules::parse(rules.to_json(), "again").to_json(), text);
}

}  // namespace rules_test
}  // namespace refract
