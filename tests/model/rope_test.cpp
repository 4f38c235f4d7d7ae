#include "model/rope.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/equal.h>
#include <gtest/gtest.h>

#include <cmath>

#include "support/errors.h"
#include "support/small_models.h"

namespace refract {
namespace rope_test {

ModelConfig scaled(const std::string& scaling, double factor) {
  ModelConfig config = testing::small_llama();
  config.head_dim = 8;
  config.rope_scaling = scaling;
  config.rope_factor = factor;
  config.rope_original_max_position_embeddings = 12;
  resolve(config, 0, 0);
  return config;
}

TEST(Rope, YarnMultipliesCosinesAndSinesByItsFactor) {
  const auto [cos, sin] = rope_tables(scaled("yarn", 4));
  EXPECT_EQ(cos.size(0), 48);  // 4 times the 12 that it was trained with
  const double expected = 0.1 * std::log(4.0) + 1;
  EXPECT_LT(cos[0].sub(expected).abs().max().item<double>(), 1e-6);
  EXPECT_LT(cos.square().add(sin.square()).sqrt().sub(expected).abs().max().item<double>(), 1e-6);
  ModelConfig given = scaled("yarn", 4);
  given.rope_attention_factor = 0.75;
  EXPECT_LT(rope_tables(given).first[0].sub(0.75).abs().max().item<double>(), 1e-6);
}

// The fastest pair turns as it did, the slowest is stretched by the whole factor.
TEST(Rope, YarnStretchesSlowPairsAlone) {
  ModelConfig plain = scaled("none", 1), yarn = scaled("yarn", 4);
  yarn.rope_attention_factor = 1;
  yarn.rope_beta_fast = 1.5;  // 12 positions: between 1.5 turns and half a turn
  yarn.rope_beta_slow = 0.5;
  const auto angle = [](const ModelConfig& config, int64_t pair) {
    return std::asin(rope_tables(config).second[1][pair].item<double>());
  };
  EXPECT_NEAR(angle(yarn, 0), angle(plain, 0), 1e-6);
  EXPECT_NEAR(angle(yarn, 3), angle(plain, 3) / 4, 1e-8);
}

// Up to max_position_embeddings dynamic scaling is none; beyond, one base serves all positions.
TEST(Rope, DynamicFollowsFromTheWholeLength) {
  const ModelConfig plain = scaled("none", 1), dynamic = scaled("dynamic", 2);
  EXPECT_EQ(dynamic.longest(), 24);
  EXPECT_EQ(dynamic.longest_cached(), 12);
  const auto [cos, sin] = rope_tables(dynamic);
  EXPECT_TRUE(at::equal(cos, rope_tables(plain).first));
  EXPECT_TRUE(at::equal(rope_tables_for(dynamic, 7).second, sin.narrow(0, 0, 7)));
  const at::Tensor longer = rope_tables_for(dynamic, 18).second;
  EXPECT_EQ(longer.size(0), 18);
  // base * (2 * 18 / 12 - 1)^(8 / 6), and pair 1 turns by base^(-2 / 8).
  const double base = 10000 * std::pow(2.0, 8.0 / 6);
  EXPECT_NEAR(longer[1][1].item<double>(), std::sin(std::pow(base, -0.25)), 1e-7);
  EXPECT_NEAR(sin[1][1].item<double>(), std::sin(std::pow(10000, -0.25)), 1e-7);
}

TEST(Rope, DynamicTakesWholeTextsBeyondTheOriginalLengthAndNoCacheDoes) {
  const ModelConfig config = scaled("dynamic", 2);
  auto model = testing::make_decoder(config, at::kDouble);
  const at::NoGradGuard no_grad;
  const at::Tensor tokens = testing::tokens_for(config, 1, 25);
  const at::Tensor long_text = model->hidden({}, tokens.narrow(1, 0, 18));
  const at::Tensor short_text = model->hidden({}, tokens.narrow(1, 0, 12));
  EXPECT_GT(long_text.narrow(1, 0, 12).sub(short_text).abs().max().item<double>(), 1e-4);
  EXPECT_TRUE(at::equal(model->hidden({}, tokens.narrow(1, 0, 18)), long_text));
  EXPECT_TRUE(testing::has(testing::error_of([&] { model->hidden({}, tokens); }),
                           "dynamic scaling stretches to 24"));
  KvCache cache = model->make_cache(1, 20);
  ForwardContext context;
  context.cache = &cache;
  model->hidden(context, tokens.narrow(1, 0, 12));
  EXPECT_TRUE(testing::has(
      testing::error_of([&] { model->hidden(context, tokens.narrow(1, 12, 1)); }), "cache of 12"));
}

TEST(Rope, TheContextMayBeAsLongAsScalingStretchesIt) {
  ModelConfig dynamic = scaled("dynamic", 2), yarn = scaled("yarn", 2), none = scaled("none", 1);
  resolve(dynamic, 0, 24);
  resolve(yarn, 0, 24);
  EXPECT_TRUE(testing::has(testing::usage_error_of([&] { resolve(dynamic, 0, 25); }),
                           "24 tokens to which dynamic scaling"));
  EXPECT_TRUE(testing::has(testing::usage_error_of([&] { resolve(none, 0, 24); }),
                           "model.max_position_embeddings = 12"));
}

}  // namespace rope_test
}  // namespace refract
