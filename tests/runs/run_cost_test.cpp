#include "runs/run_cost.h"

#include <gtest/gtest.h>

#include "runs/plan.h"
#include "support/training.h"

namespace refract {
namespace run_cost_test {

RunConfig resolved(RunConfig config) {
  resolve(config.model, 16, config.data.context);
  return config;
}

// Per token of the forward pass, with C = 32, F = 128, L = 2, T = 8, V = 16: projections 8 C C L =
// 16384, attention's products 4 T C L = 2048, feed-forward 4 C F L = 32768, head 2 C V = 1024.
TEST(RunCost, IsCountedFromTheDimensions) {
  RunConfig config = resolved(tiny_config("cost"));
  const TransformedModel model = plan_model(config, "the test");
  const RunCost cost = cost_of_run(config, *model.decoder, 12);
  EXPECT_EQ(cost.run.steps, 12);
  EXPECT_EQ(cost.run.guided_steps, 0);
  EXPECT_EQ(cost.run.tokens_per_step, 32);
  const double tokens = 12 * 32, both_ways = 3;
  EXPECT_EQ(cost.flops.attention_projections, both_ways * tokens * 16384);
  EXPECT_EQ(cost.flops.attention_products, both_ways * tokens * 2048);
  EXPECT_EQ(cost.flops.ffn, both_ways * tokens * 32768);
  EXPECT_EQ(cost.flops.head, both_ways * tokens * 1024);
  EXPECT_EQ(describe(cost, config),
            "12 steps of 4 x 8 tokens: 384 tokens, 6.016e+07 FLOPs (attention 35.3%, feed-forward "
            "62.7%, head 2.0%)");
}

TEST(RunCost, CountsGuidedStepsAndTheirRepeats) {
  RunConfig config = tiny_config("cost_guided");
  config.transform =
      R"([{"match": "model\\.layers\\.1\\.mlp\\..*", "kind": "low_rank", "rank": 4}])";
  config.self_guided.mode = "fixedflop";
  config.self_guided.ratio = 0.5;
  config = resolved(config);
  const TransformedModel model = plan_model(config, "the test");
  const RunCost cost = cost_of_run(config, *model.decoder, 12);
  EXPECT_EQ(cost.run.steps, 18);
  EXPECT_EQ(cost.run.guided_steps, 6);
  const std::string text = describe(cost, config);
  EXPECT_TRUE(text.starts_with("18 steps of 4 x 8 tokens: 576 tokens, ")) << text;
  EXPECT_TRUE(text.ends_with("; 6 steps guided")) << text;
  // A feed-forward of the second layer costs 2 x 1280 per token and its guide 2 x 8192 more.
  const double per_token = 3.0 * (2 * 8192 + 2 * 1280), guided = 3.0 * 2 * 8192;
  EXPECT_EQ(cost.flops.ffn, 18 * 32 * per_token + 6 * 32 * guided);
}

TEST(RunCost, NoStepsCostNothing) {
  RunConfig config = resolved(tiny_config("cost_nothing"));
  const TransformedModel model = plan_model(config, "the test");
  const RunCost cost = cost_of_run(config, *model.decoder, 0);
  EXPECT_EQ(cost.run.steps, 0);
  EXPECT_EQ(cost.flops.total(), 0);
}

}  // namespace run_cost_test
}  // namespace refract
