// model.sliding_window and model.layer_types: what a query sees, in whole sequences, with dropout
// and where an attention has no window. Gradients, caches and folders are tested with those of
// every setting; tests/parity compares with Mistral and Qwen2.
#include <ATen/core/grad_mode.h>
#include <ATen/ops/allclose.h>
#include <ATen/ops/tensor.h>
#include <gtest/gtest.h>

#include "support/errors.h"
#include "support/small_models.h"

namespace refract {
namespace sliding_window_test {

ModelConfig windowed(int64_t window, int64_t layers = 1) {
  ModelConfig config = testing::small_llama();
  config.num_hidden_layers = layers;
  config.sliding_window = window;
  resolve(config, 0, 0);
  return config;
}

at::Tensor hidden_of(const ModelConfig& config, const at::Tensor& tokens,
                     const ForwardContext& context = {}) {
  const at::NoGradGuard no_grad;
  return testing::make_decoder(config, at::kDouble)->hidden(context, tokens);
}

double distance(const at::Tensor& a, const at::Tensor& b) {
  return a.sub(b).abs().max().item<double>();
}

// With one layer, what stands at a position follows from its window alone.
TEST(SlidingWindow, ATokenSeesItsWindowAndNoMore) {
  const ModelConfig config = windowed(3);
  const at::Tensor tokens = testing::tokens_for(config, 1, 10);
  at::Tensor changed = tokens.clone();
  changed[0][4] = (changed[0][4].item<int64_t>() + 1) % config.vocab_size;
  const at::Tensor before = hidden_of(config, tokens), after = hidden_of(config, changed);
  for (int64_t t = 0; t < 10; ++t) {
    const double moved = distance(before.select(1, t), after.select(1, t));
    if (t >= 4 && t < 4 + 3) {
      EXPECT_GT(moved, 1e-4) << t;
    } else {
      EXPECT_LT(moved, 1e-12) << t;
    }
  }
}

TEST(SlidingWindow, OneThatHoldsTheWholeSequenceChangesNothing) {
  ModelConfig full = windowed(0, 2);
  const at::Tensor tokens = testing::tokens_for(full, 2, 7);
  EXPECT_EQ(distance(hidden_of(full, tokens), hidden_of(windowed(7, 2), tokens)), 0);
  EXPECT_GT(distance(hidden_of(full, tokens), hidden_of(windowed(6, 2), tokens)), 1e-4);
}

TEST(SlidingWindow, AttentionWithDropoutThatDropsNothingHasIt) {
  ModelConfig config = windowed(3, 2);
  const at::Tensor tokens = testing::tokens_for(config, 2, 9), plain = hidden_of(config, tokens);
  config.attention_dropout = 1e-9;
  ForwardContext training;
  training.training = true;
  training.seed = 1;
  training.clock = at::tensor({int64_t{1}, int64_t{0}}, at::kLong);
  EXPECT_LT(distance(hidden_of(config, tokens, training), plain), 1e-7);
}

TEST(SlidingWindow, LayersOfTheirOwnTypes) {
  ModelConfig config = windowed(3, 2);
  config.layer_types = {"full_attention", "sliding_attention"};
  resolve(config, 0, 0);
  const ModelPlan plan = model_plan(config);
  EXPECT_EQ(plan.layers[0].attention.window, 0);
  EXPECT_EQ(plan.layers[1].attention.window, 3);
  // One spelling for one model.
  config.layer_types = {"sliding_attention", "sliding_attention"};
  resolve(config, 0, 0);
  EXPECT_TRUE(config.layer_types.empty());
  EXPECT_EQ(config.sliding_window, 3);
  config.layer_types = {"full_attention", "full_attention"};
  resolve(config, 0, 0);
  EXPECT_TRUE(config.layer_types.empty());
  EXPECT_EQ(config.sliding_window, 0);
}

TEST(SlidingWindow, AListThatMakesNoSenseIsRefused) {
  ModelConfig config = windowed(3, 2);
  const auto error = [&](int64_t window, std::vector<std::string> types) {
    config.sliding_window = window;
    config.layer_types = std::move(types);
    return testing::usage_error_of([&] { resolve(config, 0, 0); });
  };
  EXPECT_TRUE(testing::has(error(3, {"sliding_attention"}), "names 1 layers"));
  EXPECT_TRUE(testing::has(error(3, {"sliding_attention", "chunked_attention"}), "chunked"));
  EXPECT_TRUE(
      testing::has(error(0, {"sliding_attention", "full_attention"}), "model.sliding_window = 0"));
}

// An attention as somebody's plug-in may have it, which knows nothing of windows.
class Windowless : public AttentionCore {
 public:
  explicit Windowless(const AttentionSpec& spec) : inner_(spec) {}
  at::Tensor forward(const ForwardContext& context, const at::Tensor& q, const at::Tensor& k,
                     const at::Tensor& v) override {
    return inner_.forward(context, q, k, v);
  }

 private:
  SdpaAttention inner_;
};

class WindowlessFactory : public DenseFactory {
 public:
  std::unique_ptr<AttentionCore> attention(Build, const AttentionSpec& spec) const override {
    return std::make_unique<Windowless>(spec);
  }
};

TEST(SlidingWindow, AnAttentionWithoutOneIsRefusedWhereItWouldMatter) {
  const ModelConfig config = windowed(3, 2);
  const at::NoGradGuard no_grad;
  auto model = testing::make_decoder(config, at::kDouble, WindowlessFactory());
  const at::Tensor tokens = testing::tokens_for(config, 1, 4), few = tokens.narrow(1, 0, 3);
  EXPECT_LT(distance(model->hidden({}, few), hidden_of(config, few)), 1e-12);
  const std::string message = testing::usage_error_of([&] { model->hidden({}, tokens); });
  EXPECT_TRUE(testing::has(message, "attend to 4 tokens"));
  EXPECT_TRUE(testing::has(message, "model.sliding_window = 3"));
  KvCache cache = model->make_cache(1, 8);
  ForwardContext context;
  context.cache = &cache;
  model->hidden(context, few);
  EXPECT_TRUE(
      testing::has(testing::usage_error_of([&] { model->hidden(context, tokens.narrow(1, 3, 1)); }),
                   "attend to 4 tokens"));
}

}  // namespace sliding_window_test
}  // namespace refract
