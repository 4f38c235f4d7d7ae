#include "runs/plan.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "core/error.h"
#include "support/training.h"

namespace refract {
namespace plan_test {

RunConfig config_with(const std::string& rules) {
  RunConfig config = tiny_config("plan");
  config.transform = rules;
  resolve(config.model, 16, config.data.context);
  return config;
}

// The second layer's feed-forward, 32 to 128 and back: 2 x 4096 weights become 2 x (32 + 128) x 4.
constexpr const char* kRules =
    R"([{"match": "model\\.layers\\.1\\.mlp\\..*", "kind": "low_rank", "rank": 4}])";

TEST(Plan, CountsWhatTheRulesDoWithoutAllocating) {
  RunConfig config = config_with(kRules);
  const TransformedModel model = plan_model(config, "the test");
  ASSERT_EQ(model.plan.size(), 2u);
  EXPECT_EQ(model.plan[0].modules, (std::vector<std::string>{"model.layers.1.mlp.up_proj",
                                                             "model.layers.1.mlp.down_proj"}));
  EXPECT_EQ(model.plan[0].dense_parameters, 8192);
  EXPECT_EQ(model.plan[0].parameters, 1280);
  EXPECT_FALSE(model.decoder->arena().master().defined());
  // The settings now hold the rules as they were understood.
  const auto rules = nlohmann::json::parse(config.transform);
  EXPECT_EQ(rules.at(0).at("rank"), 4);
}

TEST(Plan, TheTableHasARowForEveryRuleAndForTheRest) {
  RunConfig config = config_with(kRules);
  const std::string table = plan_table(plan_model(config, "the test"));
  for (const char* part : {"low_rank", "8,192", "1,280", "15.6%", "(no rule)"})
    EXPECT_NE(table.find(part), std::string::npos) << part << " in:\n" << table;
}

TEST(Plan, WithoutRulesThereIsNoTable) {
  RunConfig config = config_with("");
  EXPECT_EQ(plan_table(plan_model(config, "the test")), "");
}

TEST(Plan, ARuleThatMatchesNothingIsAnError) {
  RunConfig config = config_with(R"([{"match": "nothing", "kind": "low_rank", "rank": 4}])");
  EXPECT_THROW(plan_model(config, "the test"), Error);
}

}  // namespace plan_test
}  // namespace refract
