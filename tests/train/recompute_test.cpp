// train.recompute: the same bits as without it, and less memory.
#include "model/backward/recompute.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/zeros.h>
#include <gtest/gtest.h>

#include <map>
#include <string>
#include <utility>
#include <vector>

#include "model/backward/remake.h"
#include "support/errors.h"
#include "support/memory_meter.h"
#include "support/small_models.h"
#include "support/training.h"

namespace refract {
namespace recompute_test {

using testing::has;

// What a training call of a small model comes to.
struct Outcome {
  at::Tensor loss, grads;
};

Outcome outcome_of(const ModelConfig& config, Recompute what) {
  const auto model = testing::make_decoder(config);
  const at::Tensor tokens = testing::tokens_for(config, 2, 9);
  ForwardContext context;
  context.training = true;
  context.seed = 5;
  context.clock = at::zeros({2}, at::kLong);
  const RecomputeScope scope(what);
  const at::Tensor loss = model->loss(context, tokens.narrow(1, 0, 8), tokens.narrow(1, 1, 8)).sum;
  loss.backward();
  return {loss.detach(), model->arena().grads().clone()};
}

TEST(Recompute, GivesTheSameBitsForEverySetting) {
  for (const auto& [name, config] : testing::every_setting()) {
    const Outcome kept = outcome_of(config, Recompute::kNone);
    for (const Recompute what : {Recompute::kCheap, Recompute::kLayer}) {
      const Outcome again = outcome_of(config, what);
      EXPECT_TRUE(at::equal(kept.loss, again.loss)) << name;
      EXPECT_TRUE(at::equal(kept.grads, again.grads)) << name;
    }
    EXPECT_GT(kept.grads.abs().sum().item<double>(), 0) << name;
  }
}

TEST(Recompute, AScopeEndsWithItsBlock) {
  {
    const RecomputeScope outer(Recompute::kLayer);
    {
      const RecomputeScope inner(Recompute::kNone);
      EXPECT_EQ(RecomputeScope::current(), Recompute::kNone);
    }
    EXPECT_EQ(RecomputeScope::current(), Recompute::kLayer);
  }
  EXPECT_EQ(RecomputeScope::current(), Recompute::kNone);
}

struct Bytes {
  int64_t kept = 0;  // between the forward and the backward pass
  int64_t most = 0;
};

Bytes bytes_of(int64_t layers, Recompute what) {
  ModelConfig config = testing::small_gpt2();
  config.hidden_size = 64;
  config.intermediate_size = 256;
  config.num_hidden_layers = layers;
  config.max_position_embeddings = 64;
  const auto model = testing::make_decoder(config);
  const at::Tensor tokens = testing::tokens_for(config, 8, 65);
  ForwardContext context;
  context.training = true;
  context.clock = at::zeros({2}, at::kLong);
  const RecomputeScope scope(what);
  const testing::MeterScope meter;
  Bytes bytes;
  const at::Tensor loss =
      model->loss(context, tokens.narrow(1, 0, 64), tokens.narrow(1, 1, 64)).sum;
  bytes.kept = meter->live();
  loss.backward();
  bytes.most = meter->most();
  return bytes;
}

// A layer keeps its two inputs, [B, T, C] each, and nothing else that grows with the batch.
TEST(Recompute, KeepsTheInputsOfALayerAlone) {
  const int64_t input = 8 * 64 * 64 * static_cast<int64_t>(sizeof(float));
  const int64_t kept = bytes_of(8, Recompute::kLayer).kept - bytes_of(4, Recompute::kLayer).kept;
  EXPECT_GE(kept, 4 * 2 * input);
  EXPECT_LT(kept, 4 * 2 * input + input / 4);
  EXPECT_GT(bytes_of(8, Recompute::kNone).kept - bytes_of(4, Recompute::kNone).kept, 3 * kept);
  // In the backward pass one layer at a time is there in full.
  EXPECT_LT(bytes_of(8, Recompute::kLayer).most, bytes_of(8, Recompute::kNone).most / 2);
}

// Of a layer of GPT-2 that is what two norms and the activation function give to products.
TEST(Recompute, CheapKeepsNoNormsAndActivations) {
  const int64_t tokens = 8 * 64,
                freed = tokens * (64 + 64 + 256) * static_cast<int64_t>(sizeof(float));
  const Bytes none = bytes_of(4, Recompute::kNone), cheap = bytes_of(4, Recompute::kCheap);
  EXPECT_EQ(none.kept - cheap.kept, 4 * freed);
  EXPECT_LT(cheap.most, none.most - 2 * freed);  // one layer at a time has it back
}

// Weights, moments and ranges after a run.
std::vector<at::Tensor> state_after(RunConfig config, const std::string& recompute) {
  config.train.recompute = recompute;
  std::filesystem::remove_all(config.run.dir);
  TinyRun run(config);
  run.trainer->run();
  std::vector<at::Tensor> state = {run.model->arena().master().clone()};
  for (const BufferStore::Buffer& buffer : run.model->buffers().all())
    state.push_back(buffer.tensor.clone());
  return state;
}

const char* kAll = R"("match": "model\\.layers\\.\\d+\\.(self_attn|mlp)(\\.\\w+_proj)?")";
const char* kLinear = R"("match": "model\\.layers\\.\\d+\\.(self_attn|mlp)\\.\\w+_proj")";

std::string rule(const std::string& match, const std::string& kind) {
  return "[{" + match + ", " + kind + "}]";
}

TEST(Recompute, ARunUnderAnyRulesEndsInTheSameBits) {
  const std::map<std::string, std::string> rules = {
      {"dense", ""},
      {"optical", rule(kAll, R"("kind": "optical")")},
      {"optical rows",
       rule(kAll, R"("kind": "optical", "q_x_per": "token", "q_w_per": "channel")")},
      {"lora", rule(kLinear, R"("kind": "lora", "r": 4, "dropout": 0.2, "over": "optical")")},
      {"merged lora",
       rule(kLinear, R"("kind": "lora", "r": 4, "over": "optical", "adapter": "merged")")},
      {"smooth", rule(kLinear, R"("kind": "conditioned", "method": "smooth", "over": "optical")")},
      {"hadamard",
       rule(kLinear, R"("kind": "conditioned", "method": "hadamard", "over": "optical")")},
      {"mx", rule(kAll, R"("kind": "mx")")},
      {"bit flip", rule(kAll, R"("kind": "bit_flip")")},
      {"analog", rule(kLinear, R"("kind": "analog", "w_noise": 0.02, "x_range": "ema")")},
      {"analog with a learned range",
       rule(kLinear, R"("kind": "analog", "x_range": "learned", "x_init": 3)")},
      {"spiking", rule(kAll, R"("kind": "spiking", "levels": 16)")},
      {"merged lora in flips",
       rule(kLinear, R"("kind": "lora", "r": 4, "over": "bit_flip", "adapter": "merged")")},
      {"low rank", rule(kLinear, R"("kind": "low_rank", "rank": 8)")},
      {"split", rule(kLinear, R"("kind": "conditioned", "method": "split", "over": "mx")")},
      {"per token",
       rule(kLinear, R"("kind": "conditioned", "method": "per_token", "over": "bit_flip")")},
      {"lora over flips",
       rule(kLinear, R"("kind": "lora", "r": 4, "dropout": 0.2, "over": "bit_flip")")},
      {"block shuffle", rule(kLinear, R"("kind": "block_shuffle", "blocks": 2)")}};
  for (const auto& [name, transform] : rules) {
    for (const int64_t micro_batch : {0, 2}) {
      RunConfig config = tiny_config("recompute");
      config.transform = transform;
      config.model.dropout = 0.1;
      // Attention in a medium has no dropout.
      config.model.attention_dropout = transform.find(kAll) == std::string::npos ? 0.1 : 0;
      config.train.steps = 4;
      config.train.micro_batch = micro_batch;
      config.train.precision = micro_batch > 0 ? "bf16" : "fp32";
      const std::vector<at::Tensor> kept = state_after(config, "none");
      for (const char* what : {"cheap", "layer"}) {
        const std::vector<at::Tensor> again = state_after(config, what);
        ASSERT_EQ(kept.size(), again.size());
        for (size_t i = 0; i < kept.size(); ++i)
          EXPECT_TRUE(at::equal(kept[i], again[i])) << name << ", " << what << micro_batch;
      }
    }
  }
}

TEST(Recompute, AGuidedRunEndsInTheSameBits) {
  RunConfig config = tiny_config("recompute_guided");
  config.transform =
      R"([{"match": "model\\.layers\\.1\\.mlp\\..*", "kind": "low_rank", "rank": 8}])";
  config.self_guided.mode = "fixedstep";
  config.self_guided.ratio = 0.5;
  config.train.steps = 6;
  const std::vector<at::Tensor> kept = state_after(config, "none");
  EXPECT_TRUE(at::equal(kept[0], state_after(config, "layer")[0]));
  EXPECT_TRUE(at::equal(kept[0], state_after(config, "cheap")[0]));
}

// Stopped half way and gone on with another setting.
TEST(Recompute, AResumedRunMayChangeIt) {
  RunConfig config = tiny_config("recompute_resumed");
  config.model.dropout = 0.1;
  config.train.steps = 6;
  const std::vector<at::Tensor> whole = state_after(config, "none");
  config.train.recompute = "cheap";
  config.checkpoint.permanent = {3};
  std::filesystem::remove_all(config.run.dir);
  TinyRun(config).trainer->run();
  std::filesystem::remove_all(Checkpoints(config.run.dir).path(6));
  TinyRun resumed(config);
  ASSERT_EQ(resumed.trainer->resume(), 3);
  resumed.trainer->run();
  EXPECT_TRUE(at::equal(whole[0], resumed.model->arena().master()));
}

// What was freed last comes back first: the second value is made from the first.
TEST(Recompute, WhatWasFreedComesBackInOrder) {
  const RecomputeScope scope(Recompute::kCheap);
  const at::Tensor weight = at::zeros({3}).add_(2).requires_grad_(true),
                   start = at::zeros({3}).add_(5);
  const at::Tensor first = start.add(1), second = first.mul(3);
  const at::Tensor result = second.mul(weight);
  free_until_backward(second, result, [x = first.detach()] { return x.mul(3); });
  free_until_backward(first, result, [start] { return start.add(1); });
  EXPECT_EQ(first.storage().nbytes() + second.storage().nbytes(), 0U);
  result.sum().backward();
  EXPECT_TRUE(at::equal(weight.grad(), at::zeros({3}).add_(18)));
}

TEST(Recompute, NothingIsFreedWithoutTheSettingOrAGradient) {
  const at::Tensor value = at::zeros({3}).add_(1),
                   weight = at::zeros({3}).add_(2).requires_grad_(true);
  const auto never = [] { return at::Tensor(); };
  free_until_backward(value, value.mul(weight), never);
  const RecomputeScope scope(Recompute::kCheap);
  free_until_backward(value, value.mul(2), never);
  const at::NoGradGuard no_grad;
  free_until_backward(value, value.mul(weight), never);
  EXPECT_EQ(value.sum().item<double>(), 3);
}

// What a layer computes from inputs without a gradient: its leaves still get theirs.
TEST(Recompute, LeavesLearnBehindInputsThatDoNot) {
  const at::Tensor weight = at::zeros({3}).add_(2).requires_grad_(true);
  const at::Tensor input = at::zeros({3}).add_(5);
  const std::vector<at::Tensor> out =
      recomputed({input}, {}, [weight](const std::vector<at::Tensor>& in) {
        return std::vector<at::Tensor>{in[0].mul(weight), in[0].add(1)};
      });
  EXPECT_TRUE(out[0].requires_grad());
  out[0].sum().backward();
  EXPECT_TRUE(at::equal(weight.grad(), input));
}

TEST(Recompute, RefusesStateThatItCannotRestore) {
  BufferStore store;
  BufferStore::Buffer* counter = store.declare("model.layers.0.calls", at::zeros({1}, at::kLong));
  const std::string error = testing::error_of([&] {
    recomputed({at::zeros({1})}, {counter}, [](const std::vector<at::Tensor>& in) { return in; });
  });
  EXPECT_TRUE(has(error, "'model.layers.0.calls' is no float state")) << error;
}

}  // namespace recompute_test
}  // namespace refract
