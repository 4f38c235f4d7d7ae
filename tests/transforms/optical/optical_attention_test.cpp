// The attention part of the optical kind: the layer, its state, and decoding with a cache.
#include "transforms/optical/optical_attention.h"

#include <ATen/ops/cat.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "core/error.h"
#include "model/dense.h"
#include "transforms/kind.h"

namespace refract {
namespace {

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

TEST(OpticalAttentionTest, RefusesDropout) {
  AttentionSpec dropped = spec();
  dropped.dropout = 0.1;
  EXPECT_THROW(Layer(json::object(), dropped), Error);
}

}  // namespace
}  // namespace refract
