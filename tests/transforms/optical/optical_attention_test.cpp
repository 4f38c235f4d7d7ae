// The attention part of the optical kind: the layer, its state, and decoding with a cache.
#include "transforms/optical/optical_attention.h"

#include <ATen/ops/aminmax.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "core/error.h"
#include "model/dense.h"
#include "ops/optical/attention/attention.h"
#include "ops/optical/quantize/quantization_math.h"
#include "transforms/kind.h"

namespace refract {
namespace optical_attention_test {

using nlohmann::json;

AttentionSpec spec() { return {"model.layers.0.self_attn", 0, 4, 2, 8, 0.35, 0.0}; }

struct Inputs {
  at::Tensor q = at::randn({2, 10, 4, 8}), k = at::randn({2, 10, 2, 8}),
             v = at::randn({2, 10, 2, 8});
};

struct Layer {
  explicit Layer(json parameters = json::object(), const AttentionSpec& attention = spec()) {
    parameters["kind"] = "optical";
    core = make_kind(parameters.dump(), "the test")
               ->attention({arena, buffers, transformed}, attention);
  }
  at::Tensor forward(const Inputs& x, int64_t step, KvCache* cache = nullptr) {
    ForwardContext context;
    context.training = step >= 0;
    context.seed = 3;
    context.clock = at::tensor({step, int64_t{0}}, at::kLong);
    context.cache = cache;
    return core->forward(context, x.q, x.k, x.v);
  }
  at::Tensor ranges() { return buffers.find("model.layers.0.self_attn.ranges")->tensor; }

  ParameterArena arena;
  BufferStore buffers;
  std::vector<TransformedLayer> transformed;
  std::unique_ptr<AttentionCore> core;
};

TEST(OpticalAttentionTest, RangesAreABufferThatMovesInTraining) {
  Layer layer;
  const Inputs x;
  layer.forward(x, kEvaluationStep);
  EXPECT_GT(layer.ranges()[0][0].item<float>(), 1e30f);
  layer.forward(x, 0);
  EXPECT_EQ(layer.ranges()[0][0].item<float>(), x.q.min().item<float>());
  EXPECT_EQ(layer.ranges()[1][1].item<float>(), x.k.max().item<float>());
  const at::Tensor kept = layer.ranges().clone();
  layer.forward(x, kEvaluationStep);
  EXPECT_TRUE(at::equal(layer.ranges(), kept));
}

TEST(OpticalAttentionTest, IsDenseAttentionUpToItsLevels) {
  const Inputs x;
  Layer optical(json{{"q_levels", 65536}, {"q_lut_min", 0}, {"noise", false}});
  SdpaAttention dense(spec());
  ForwardContext context;
  const at::Tensor expected = dense.forward(context, x.q, x.k, x.v);
  EXPECT_LT(optical.forward(x, 0).sub(expected).abs().max().item<double>(), 1e-3);
  EXPECT_TRUE(at::equal(Layer(json{{"q_bypass", true}}).forward(x, 0), expected));
}

TEST(OpticalAttentionTest, NoiseDependsOnStepSeedAndName) {
  const Inputs x;
  Layer layer;
  layer.forward(x, 0);
  const auto output = [&](const json& parameters, const AttentionSpec& s, int64_t step) {
    Layer other(parameters, s);
    other.buffers.all()[0].tensor.copy_(layer.ranges());
    return other.forward(x, step);
  };
  AttentionSpec renamed = spec();
  renamed.name = "model.layers.1.self_attn";
  const at::Tensor base = output(json::object(), spec(), 4);
  EXPECT_TRUE(at::equal(base, output(json::object(), spec(), 4)));
  EXPECT_FALSE(at::equal(base, output(json::object(), spec(), 5)));
  EXPECT_FALSE(at::equal(base, output(json::object(), renamed, 4)));
  EXPECT_FALSE(at::equal(base, output(json{{"q_init_seed", 1}}, spec(), 4)));
}

TEST(OpticalAttentionTest, DecodingWithACacheIsTheWholeSequence) {
  const Inputs x;
  Layer layer;
  layer.forward(x, 0);
  const at::Tensor whole = layer.forward(x, kEvaluationStep);
  KvCache cache;
  cache.keys = {at::zeros({2, 2, 12, 8})};
  cache.values = {at::zeros({2, 2, 12, 8})};
  std::vector<at::Tensor> parts;
  for (const int64_t count : {3, 1, 1, 4, 1}) {
    Inputs part;
    part.q = x.q.narrow(1, cache.length, count);
    part.k = x.k.narrow(1, cache.length, count);
    part.v = x.v.narrow(1, cache.length, count);
    parts.push_back(layer.forward(part, kEvaluationStep, &cache));
    cache.length += count;
  }
  EXPECT_TRUE(at::equal(at::cat(parts, 1), whole));
}

// Queries times what they scale by: other scores, other ranges.
Inputs scaled(const Inputs& x, double factor) {
  Inputs other = x;
  other.q = x.q.mul(factor);
  other.v = x.v.mul(factor);
  return other;
}

// The fine-tuning program, call by call, with the shared numbers, ranges and moves written out.
TEST(OpticalAttentionTest, FineTuningDrawsAnotherNumberInEveryCallAndFreezesTheScores) {
  for (const int64_t first_seed : {0, 5}) {
    Layer layer(json{{"compat", "mase-finetune"}, {"q_init_seed", first_seed}});
    at::Tensor ranges = layer.ranges().clone();
    const Inputs x;
    for (int64_t call = 0; call < 5; ++call) {
      const Inputs now = scaled(x, 1 + 0.5 * static_cast<double>(call));
      const int64_t step = call % 2 == 0 ? call : kEvaluationStep;  // ranges move in either
      const at::Tensor y = layer.forward(now, step);

      OpticalAttentionSettings s;
      s.scale = spec().scale;
      s.scaled_score_range = s.train = s.noise = true;
      s.streams = {0, 0};
      const auto seed = static_cast<uint64_t>(first_seed + 2 * call);
      s.call_noise = at::tensor(
          {optical::mase_shared_noise(seed), optical::mase_shared_noise(seed + 1)}, at::kFloat);
      const at::Tensor before = ranges.clone();
      const auto expected =
          composite::optical_attention_forward({now.q, now.k, now.v, ranges, false, s});
      EXPECT_TRUE(at::equal(y, expected.out.reshape(y.sizes()))) << call;
      if (call > 0) ranges[attention_op::kScore].copy_(before[attention_op::kScore]);
      EXPECT_TRUE(at::equal(layer.ranges(), ranges)) << call;
      if (call == 0) continue;
      // q's and v's by the formula: r <- 0.9 r + 0.1 seen; the output's not by clipped values.
      const auto [lo, hi] = at::aminmax(now.q);
      EXPECT_NEAR(ranges[0][0].item<double>(),
                  0.9 * before[0][0].item<double>() + 0.1 * lo.item<double>(), 1e-6);
      EXPECT_NEAR(ranges[0][1].item<double>(),
                  0.9 * before[0][1].item<double>() + 0.1 * hi.item<double>(), 1e-6);
      EXPECT_GT(ranges[attention_op::kOutput][1].item<double>(),
                before[attention_op::kOutput][1].item<double>())
          << "larger values, a larger range";
    }
  }
}

TEST(OpticalAttentionTest, FineTuningGoesOnFromItsBuffers) {
  const json parameters = {{"compat", "mase-finetune"}};
  const Inputs x;
  Layer whole(parameters), resumed(parameters);
  for (int64_t call = 0; call < 3; ++call) whole.forward(x, call);
  for (size_t i = 0; i < whole.buffers.all().size(); ++i)
    resumed.buffers.all()[i].tensor.copy_(whole.buffers.all()[i].tensor);
  EXPECT_EQ(resumed.buffers.find("model.layers.0.self_attn.calls")->tensor.item<double>(), 3);
  EXPECT_TRUE(at::equal(whole.forward(x, 3), resumed.forward(x, 3)));
  Layer anew(parameters);
  anew.ranges().copy_(resumed.ranges());
  EXPECT_FALSE(at::equal(resumed.forward(x, 4), anew.forward(x, 4))) << "other numbers";
}

// The pretraining program: the three switches, no number of calls, nothing moves in evaluation.
TEST(OpticalAttentionTest, PretrainingIsTheThreeSwitches) {
  const Inputs x;
  Layer all(json{{"compat", "mase-pretrain"}}), each(json{{"compat_shared_noise", true},
                                                          {"compat_clipped_range", true},
                                                          {"compat_scaled_qk_range", true}});
  EXPECT_EQ(all.buffers.all().size(), 1u);
  for (int64_t call = 0; call < 4; ++call) {
    const Inputs now = scaled(x, 1 + static_cast<double>(call));
    EXPECT_TRUE(at::equal(all.forward(now, call), each.forward(now, call)));
    EXPECT_TRUE(at::equal(all.ranges(), each.ranges()));
    const at::Tensor kept = all.ranges().clone();
    all.forward(scaled(x, 9), kEvaluationStep);
    EXPECT_TRUE(at::equal(all.ranges(), kept));
  }
}

TEST(OpticalAttentionTest, RefusesDropout) {
  AttentionSpec dropped = spec();
  dropped.dropout = 0.1;
  EXPECT_THROW(Layer(json::object(), dropped), Error);
}

}  // namespace optical_attention_test
}  // namespace refract
