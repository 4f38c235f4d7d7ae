// Layers in a medium that changes operands: number formats, integers, flipped bits.
#include "transforms/media/medium_layers.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/addmm.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/linear.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <utility>

#include "core/error.h"
#include "model/dense.h"
#include "ops/numeric/quantize.h"
#include "transforms/kind.h"
#include "transforms/media/hadamard.h"
#include "transforms/media/observer.h"
#include "transforms/one_layer.h"

namespace refract {
namespace medium_layers_test {

using nlohmann::json;

std::unique_ptr<Kind> kind_of(const json& table) { return make_kind(table.dump(), "the test"); }

ForwardContext at_step(int64_t step) {
  ForwardContext context;
  context.training = step >= 0;
  context.seed = 7;
  context.clock = at::tensor({step, int64_t{0}}, at::kLong);
  return context;
}

// A layer [in -> out] in float.
struct FloatLayer {
  FloatLayer(const json& table, int64_t in, int64_t out, const std::string& name = "layer")
      : kind(kind_of(table)) {
    layer = kind->linear({arena, buffers, transformed}, {name, in, out});
    arena.allocate(at::kCPU, at::kFloat, at::kFloat);
    arena.initialize(3);
  }
  at::Tensor forward(const at::Tensor& x, int64_t step = 0) const {
    return layer->forward(at_step(step), x);
  }
  at::Tensor weight() { return arena.value(&arena.parameters().front()); }

  ParameterArena arena;
  BufferStore buffers;
  std::vector<TransformedLayer> transformed;
  std::unique_ptr<Kind> kind;
  std::unique_ptr<LinearLayer> layer;
};

NumberFormat mx_e4m3() {
  NumberFormat f;
  f.scaling = 1;
  f.block = 32;
  return f;
}

void expect_near(const at::Tensor& a, const at::Tensor& b, double tolerance) {
  ASSERT_EQ(a.sizes(), b.sizes());
  EXPECT_LE((a - b).abs().max().item<double>(), tolerance);
}

TEST(MediumLayers, AnMxLayerMultipliesWhatItsFormatsHold) {
  FloatLayer one({{"kind", "mx"}}, 96, 24);
  const at::Tensor x = at::randn({2, 5, 96});
  const at::Tensor expected = at::linear(number_quantize(x, false, mx_e4m3()),
                                         number_quantize(one.weight(), false, mx_e4m3()));
  expect_near(one.forward(x), expected, 1e-5);
  EXPECT_GT((one.forward(x) - at::linear(x, one.weight())).abs().max().item<double>(), 1e-4);
}

// Each product of the backward pass sums over another dimension, so its operands have other blocks.
TEST(MediumLayers, BackwardOperandsAreRoundedAlongWhatTheirProductSumsOver) {
  FloatLayer one({{"kind", "mx"},
                  {"grad_format", "e5m2"},
                  {"backward_x_format", "e4m3"},
                  {"backward_w_format", "e4m3"}},
                 64, 40);
  const at::Tensor x = at::randn({3, 32, 64}).requires_grad_(true), g = at::randn({3, 32, 40});
  one.arena.grads().zero_();
  one.forward(x).backward(g);
  NumberFormat e5m2 = mx_e4m3();
  e5m2.exponent_bits = 5;
  e5m2.mantissa_bits = 2;
  e5m2.max = 57344;
  const at::NoGradGuard no_grad;
  const at::Tensor rows = x.reshape({96, 64}), grad = g.reshape({96, 40});
  const at::Tensor for_x = at::matmul(number_quantize(grad, false, e5m2),
                                      number_quantize(one.weight(), true, mx_e4m3()));
  expect_near(x.grad().reshape({96, 64}), for_x, 1e-4);
  const at::Tensor for_w =
      at::matmul(number_quantize(grad, true, e5m2).t(), number_quantize(rows, true, mx_e4m3()));
  expect_near(one.arena.gradient(&one.arena.parameters().front()), for_w, 1e-4);
}

TEST(MediumLayers, NoFormatIsTheDenseLayer) {
  for (const json& table :
       {json{{"kind", "mx"}, {"format", "none"}}, json{{"kind", "minifloat"}, {"format", "none"}},
        json{{"kind", "integer"}, {"x_bits", 0}, {"w_bits", 0}},
        json{{"kind", "bit_flip"},
             {"x_p_exp", 0},
             {"x_p_frac", 0},
             {"x_zero_out_t", 0},
             {"w_p_exp", 0},
             {"w_p_frac", 0},
             {"w_zero_out_t", 0}}}) {
    FloatLayer one(table, 48, 24);
    const at::Tensor x = at::randn({2, 5, 48});
    expect_near(one.forward(x), at::linear(x, one.weight()), 1e-5);
  }
}

TEST(MediumLayers, IntegersOfEveryGranularityComeNearAndFinerOnesNearer) {
  const at::Tensor x = at::randn({4, 8, 96});
  const auto error = [&](const json& more) {
    json table = {{"kind", "integer"}, {"x_bits", 4}, {"w_bits", 4}};
    table.update(more);
    FloatLayer one(table, 96, 64);
    one.weight()[3].mul_(20);  // a large output channel
    const at::Tensor exact = at::linear(x, one.weight());
    return ((one.forward(x) - exact).norm() / exact.norm()).item<double>();
  };
  const double tensor = error({{"w_scale", "tensor"}, {"x_scale", "tensor"}});
  const double channel = error(json::object());
  const double group = error({{"w_scale", "group"}, {"x_scale", "group"}, {"group", 16}});
  EXPECT_LT(channel, tensor);
  EXPECT_LT(group, channel);
  EXPECT_LT(error({{"x_bits", 8}, {"w_bits", 8}}), 0.02);
  EXPECT_LT(error({{"x_bits", 16}, {"w_bits", 16}}), 1e-4);
  EXPECT_LT(error({{"symmetric", false}, {"x_bits", 8}, {"w_bits", 8}}), 0.02);
}

// Both gradients are what a gradient of W + s B A comes to, s = 1.5.
void expect_gradients_of(ParameterArena& arena, const std::string& name, const at::Tensor& dw,
                         const at::Tensor& a, const at::Tensor& b) {
  expect_near(arena.gradient(arena.find(name + ".lora_A.weight")), at::matmul(b.t(), dw).mul(1.5),
              1e-4);
  expect_near(arena.gradient(arena.find(name + ".lora_B.weight")), at::matmul(dw, a.t()).mul(1.5),
              1e-4);
}

json merged_over(const json& over) {
  return {{"kind", "lora"}, {"r", 2}, {"alpha", 3}, {"adapter", "merged"}, {"over", over}};
}

// The medium sees W + s B A, and adapters get what it makes of that weight's gradient.
TEST(MediumLayers, MergedAdaptersAreInTheWeightThatTheMediumMultipliesBy) {
  for (const json& over :
       {json{{"kind", "mx"}}, json{{"kind", "minifloat"}, {"format", "e4m3"}},
        json{{"kind", "mx"}, {"grad_format", "e2m1"}, {"backward_x_format", "e2m1"}},
        json{{"kind", "integer"}}, json{{"kind", "integer"}, {"w_scale", "tensor"}},
        json{{"kind", "bit_flip"}, {"x_p_frac", 0.1}, {"w_p_frac", 0.1}, {"x_zero_out_t", 3}}}) {
    SCOPED_TRACE(over.dump());
    FloatLayer lora(merged_over(over), 24, 16);
    at::Tensor a = lora.arena.value(lora.arena.find("layer.lora_A.weight"));
    at::Tensor b = lora.arena.value(lora.arena.find("layer.lora_B.weight"));
    a.copy_(at::randn({2, 24}));
    b.copy_(at::randn({16, 2}));
    FloatLayer plain(over, 24, 16);
    plain.weight().copy_(
        at::addmm(lora.arena.value(lora.arena.find("layer.weight")), b.mul(1.5), a));
    const at::Tensor x = at::randn({2, 5, 24}), g = at::randn({2, 5, 16});
    EXPECT_TRUE(lora.forward(x).equal(plain.forward(x)));
    EXPECT_FALSE(lora.layer->computes_merged());
    lora.arena.grads().zero_();
    plain.arena.grads().zero_();
    lora.forward(x).backward(g);
    plain.forward(x).backward(g);
    const at::Tensor dw = plain.arena.gradient(&plain.arena.parameters().front());
    expect_gradients_of(lora.arena, "layer", dw, a, b);
    // Whether that is the dense layer's.
    const bool dense = over.at("kind") != "bit_flip" && !over.contains("grad_format");
    const at::Tensor product = at::matmul(g.reshape({10, 16}).t(), x.reshape({10, 24}));
    EXPECT_EQ((dw - product).abs().max().item<double>() < 1e-4, dense);
  }
}

TEST(MediumLayers, WhereAllProductsAreZeroAMergedAdapterStands) {
  FloatLayer lora(merged_over({{"kind", "bit_flip"},
                               {"x_p_exp", 0},
                               {"x_p_frac", 0},
                               {"x_zero_out_t", 1e-30},
                               {"w_p_exp", 0},
                               {"w_p_frac", 0}}),
                  24, 16);
  lora.arena.value(lora.arena.find("layer.lora_B.weight")).fill_(0.1);
  const at::Tensor y = lora.forward(at::ones({2, 5, 24}));
  EXPECT_EQ(y.abs().max().item<double>(), 0);
  lora.arena.grads().fill_(0);
  y.backward(at::ones({2, 5, 16}));
  EXPECT_EQ(lora.arena.grads().abs().max().item<double>(), 0);
}

ProjectionSpec qkv() { return {{{"q_proj", 32, 24}, {"k_proj", 32, 8}, {"v_proj", 32, 8}}}; }

TEST(MediumLayers, EachMergedAdapterOfAGroupGetsItsPartOfTheWeightsGradient) {
  const json over = {
      {"kind", "bit_flip"}, {"x_p_exp", 0}, {"x_p_frac", 0.1}, {"w_p_exp", 0}, {"w_p_frac", 0.1}};
  ParameterArena arena, plain;
  BufferStore buffers;
  std::vector<TransformedLayer> transformed;
  const auto adapted = kind_of(merged_over(over));
  const auto medium = kind_of(over);
  const auto group = adapted->projections({arena, buffers, transformed}, qkv());
  const auto expected = medium->projections({plain, buffers, transformed}, qkv());
  for (ParameterArena* each : {&arena, &plain}) {
    each->allocate(at::kCPU, at::kFloat, at::kFloat);
    each->initialize(5);
    each->grads().zero_();
  }
  const at::NoGradGuard no_grad;
  for (const LinearSpec& member : qkv().members) {
    at::Tensor a = arena.value(arena.find(member.name + ".lora_A.weight"));
    at::Tensor b = arena.value(arena.find(member.name + ".lora_B.weight"));
    a.copy_(at::randn(a.sizes()));
    b.copy_(at::randn(b.sizes()));
    const at::Tensor w = arena.value(arena.find(member.name + ".weight"));
    plain.value(plain.find(member.name + ".weight")).copy_(at::addmm(w, b.mul(1.5), a));
  }
  const at::Tensor x = at::randn({2, 3, 32}), g = at::randn({2, 3, 40});
  {
    const at::AutoGradMode grad(true);
    group->forward(at_step(0), x).backward(g);
    expected->forward(at_step(0), x).backward(g);
  }
  for (const LinearSpec& member : qkv().members) {
    SCOPED_TRACE(member.name);
    expect_gradients_of(arena, member.name, plain.gradient(plain.find(member.name + ".weight")),
                        arena.value(arena.find(member.name + ".lora_A.weight")),
                        arena.value(arena.find(member.name + ".lora_B.weight")));
  }
}

TEST(MediumLayers, AGroupIsItsMembersInTurn) {
  for (const char* name : {"mx", "minifloat", "integer"}) {
    const auto kind = kind_of({{"kind", name}});
    const at::Tensor x = at::randn({2, 3, 32});
    ParameterArena arena, other;
    BufferStore buffers;
    std::vector<TransformedLayer> transformed;
    const auto group = kind->projections({arena, buffers, transformed}, qkv());
    ASSERT_NE(group, nullptr) << name;
    EXPECT_EQ(transformed.size(), 3u);
    std::vector<std::unique_ptr<LinearLayer>> layers;
    for (const LinearSpec& member : qkv().members)
      layers.push_back(kind->linear({other, buffers, transformed}, member));
    for (ParameterArena* each : {&arena, &other}) {
      each->allocate(at::kCPU, at::kFloat, at::kFloat);
      each->initialize(5);
    }
    std::vector<at::Tensor> parts;
    for (const auto& layer : layers) parts.push_back(layer->forward(at_step(0), x));
    expect_near(group->forward(at_step(0), x), at::cat(parts, -1), 1e-5);
  }
}

TEST(MediumLayers, AWeightWithOneScaleIsNotJoinedToAnother) {
  ParameterArena arena;
  BufferStore buffers;
  std::vector<TransformedLayer> transformed;
  const Build build{arena, buffers, transformed};
  EXPECT_EQ(kind_of({{"kind", "integer"}, {"w_scale", "tensor"}})->projections(build, qkv()),
            nullptr);
  EXPECT_EQ(kind_of({{"kind", "mx"}, {"format", "nvfp4"}})->projections(build, qkv()), nullptr);
}

TEST(MediumLayers, AWeightIsRoundedAgainWhereItChanged) {
  FloatLayer one({{"kind", "mx"}}, 32, 8);
  const at::Tensor x = at::randn({1, 2, 32});
  ForwardContext context = at_step(0);
  const at::Tensor before = one.layer->forward(context, x);
  one.weight().mul_(2);
  context.weights_changed = false;
  EXPECT_TRUE(one.layer->forward(context, x).equal(before));
  context.weights_changed = true;
  expect_near(one.layer->forward(context, x), before * 2, 1e-5);
}

// ---- Beneath other kinds, and watched

json conditioned(const char* method, const json& medium) {
  return {{"kind", "conditioned"}, {"method", method}, {"over", medium}};
}

TEST(MediumLayers, AnObserverSeesTheModelsOwnActivations) {
  struct : MediumObserver {
    at::Tensor see(const Observation& seen) override { return seen.values; }
    void see_channels(const std::string&, const at::Tensor&, const at::Tensor&) override {}
  } observer;
  for (const char* name : {"mx", "minifloat", "integer", "bit_flip"}) {
    FloatLayer one({{"kind", name}}, 96, 24);
    const at::Tensor x = at::randn({2, 5, 96}).mul(10), dense = at::linear(x, one.weight());
    EXPECT_GT((one.forward(x) - dense).abs().max().item<double>(), 1e-3) << name;
    const ObserverScope scope(observer);
    expect_near(one.forward(x), dense, 1e-5);
  }
}

TEST(MediumLayers, ConditioningHandsOnWhatItMakesOfBothOperands) {
  FloatLayer one(conditioned("hadamard", {{"kind", "mx"}}), 96, 24);
  const Hadamard turn(96, 0, "hadamard:layer");
  const at::Tensor x = at::randn({2, 5, 96});
  const at::Tensor expected =
      at::linear(number_quantize(turn.apply(x), false, mx_e4m3()),
                 number_quantize(turn.apply(one.weight()), false, mx_e4m3()));
  expect_near(one.forward(x), expected, 1e-5);
}

// One channel of the input is 300 times the others, and the weight is as much smaller there, so
// that it counts no more than they do.
TEST(MediumLayers, ConditioningRepairsAnOutlierChannelInEveryMedium) {
  at::Tensor x = at::randn({1, 64, 128});
  x.select(2, 7).mul_(300);
  const auto error = [&](const json& table) {
    FloatLayer one(table, 128, 32);
    one.weight().select(1, 7).div_(300);
    const at::Tensor exact = at::linear(x, one.weight());
    return ((one.forward(x) - exact).norm() / exact.norm()).item<double>();
  };
  const json zeroing = {
      {"kind", "bit_flip"}, {"x_p_exp", 0}, {"x_p_frac", 0}, {"w_p_exp", 0}, {"w_p_frac", 0}};
  for (const json& medium :
       {json{{"kind", "integer"}}, json{{"kind", "integer"}, {"x_scale", "tensor"}},
        json{{"kind", "mx"}, {"format", "e2m1"}}, json{{"kind", "minifloat"}, {"format", "e2m3"}},
        zeroing}) {
    const double plain = error(medium);
    EXPECT_GT(plain, 0.05) << medium;
    EXPECT_LT(error(conditioned("smooth", medium)), 0.6 * plain) << medium;
    // The weights are below e2m3's smallest value, and splitting does not scale what stays.
    if (medium.value("format", "") == "e2m3") continue;
    EXPECT_LT(error(conditioned("split", medium)), 0.6 * plain) << medium;
  }
}

TEST(MediumLayers, TheGradientBeneathConditioningIsTheDenseLayers) {
  for (const char* name : {"mx", "minifloat", "integer"}) {
    for (const char* method : {"smooth", "hadamard", "split", "per_token", "per_channel"}) {
      FloatLayer one(conditioned(method, {{"kind", name}}), 32, 16);
      const at::Tensor x = at::randn({2, 5, 32}).requires_grad_(true), g = at::randn({2, 5, 16});
      one.arena.grads().zero_();
      one.forward(x).backward(g);
      const at::NoGradGuard no_grad;
      expect_near(x.grad(), at::matmul(g, one.weight()), 1e-5);
      expect_near(one.arena.gradient(&one.arena.parameters().front()),
                  at::matmul(g.flatten(0, 1).t(), x.flatten(0, 1)), 1e-4);
    }
  }
}

// ---- Attention

AttentionSpec heads(int64_t queries, int64_t keys) {
  AttentionSpec spec;
  spec.name = "model.layers.0.self_attn";
  spec.num_heads = queries;
  spec.num_kv_heads = keys;
  spec.head_dim = 16;
  spec.scale = 0.25;
  return spec;
}

struct Qkv {
  at::Tensor q, k, v;
  Qkv(const AttentionSpec& spec, int64_t tokens)
      : q(at::randn({2, tokens, spec.num_heads, spec.head_dim})),
        k(at::randn({2, tokens, spec.num_kv_heads, spec.head_dim})),
        v(at::randn({2, tokens, spec.num_kv_heads, spec.head_dim})) {}
};

std::unique_ptr<AttentionCore> attention_of(const json& table, const AttentionSpec& spec) {
  ParameterArena arena;
  BufferStore buffers;
  std::vector<TransformedLayer> transformed;
  return kind_of(table)->attention({arena, buffers, transformed}, spec);
}

TEST(MediumLayers, AttentionWithoutFormatsIsDenseAttentionGradientsToo) {
  for (const auto& [keys, window] : {std::pair{4, 0}, {2, 0}, {1, 0}, {2, 4}}) {
    AttentionSpec spec = heads(4, keys);
    spec.window = window;
    Qkv a(spec, 9);
    Qkv b = a;
    for (Qkv* each : {&a, &b}) {
      for (at::Tensor* t : {&each->q, &each->k, &each->v}) *t = t->clone().requires_grad_(true);
    }
    const at::Tensor y = attention_of({{"kind", "mx"}, {"format", "none"}}, spec)
                             ->forward(at_step(0), a.q, a.k, a.v);
    const at::Tensor expected = SdpaAttention(spec).forward(at_step(0), b.q, b.k, b.v);
    expect_near(y, expected, 1e-5);
    const at::Tensor g = at::randn(y.sizes());
    y.backward(g);
    expected.backward(g);
    expect_near(a.q.grad(), b.q.grad(), 1e-5);
    expect_near(a.k.grad(), b.k.grad(), 1e-5);
    expect_near(a.v.grad(), b.v.grad(), 1e-5);
  }
}

TEST(MediumLayers, DecodingWithACacheIsTheWholeSequence) {
  AttentionSpec spec = heads(4, 2);
  spec.window = 3;
  const Qkv in(spec, 6);
  const auto core = attention_of({{"kind", "minifloat"}}, spec);
  EXPECT_TRUE(core->follows_window());
  const at::Tensor whole = core->forward(at_step(-1), in.q, in.k, in.v);
  KvCache cache;
  cache.keys = {at::zeros({2, 2, 8, 16})};
  cache.values = {at::zeros({2, 2, 8, 16})};
  ForwardContext context = at_step(-1);
  context.cache = &cache;
  for (int64_t t = 0; t < 6; ++t) {
    const auto one = [&](const at::Tensor& x) { return x.narrow(1, t, 1); };
    expect_near(core->forward(context, one(in.q), one(in.k), one(in.v)), one(whole), 1e-5);
    ++cache.length;
  }
  expect_near(whole, SdpaAttention(spec).forward(at_step(-1), in.q, in.k, in.v), 0.3);
  EXPECT_GT((whole - SdpaAttention(spec).forward(at_step(-1), in.q, in.k, in.v))
                .abs()
                .max()
                .item<double>(),
            1e-4);
}

// ---- Flipped bits

json flips() {
  return {{"kind", "bit_flip"}, {"x_p_exp", 0},     {"x_p_frac", 0},
          {"x_zero_out_t", 0},  {"w_p_exp", 0.001}, {"w_p_frac", 0.1}};
}

TEST(MediumLayers, FlipsDifferBetweenLayersAndStepsUnlessTheyPersist) {
  const at::Tensor x = at::randn({1, 2, 48});
  FloatLayer one(flips(), 48, 24), other(flips(), 48, 24, "another");
  other.weight().copy_(one.weight());
  const at::Tensor y = one.forward(x, 1);
  EXPECT_TRUE(y.equal(one.forward(x, 1)));
  EXPECT_FALSE(y.equal(other.forward(x, 1)));
  EXPECT_FALSE(y.equal(one.forward(x, 2)));
  json stuck = flips();
  stuck["persistent"] = true;
  FloatLayer same(stuck, 48, 24);
  EXPECT_TRUE(same.forward(x, 1).equal(same.forward(x, 2)));
  EXPECT_FALSE(same.forward(x, 1).equal(at::linear(x, same.weight())));
}

TEST(MediumLayers, WeightsBeyondTheLimitMultiplyNothing) {
  json table = flips();
  table["w_p_exp"] = table["w_p_frac"] = 0;
  FloatLayer one(table, 4, 2);
  one.weight().copy_(at::tensor({1.0f, 2.0f, -1.0f, -1.3f, 0.5f, 1.24f, 0.0f, 9.0f}).view({2, 4}));
  const at::Tensor y = one.forward(at::tensor({1.0f, 1.0f, 1.0f, 1.0f}).view({1, 1, 4}));
  expect_near(y, at::tensor({0.0f, 1.74f}).view({1, 1, 2}), 1e-6);
}

TEST(MediumLayers, RefusesWhatNoFormatIs) {
  EXPECT_THROW(kind_of({{"kind", "mx"}, {"format", "e4m4"}}), Error);
  EXPECT_THROW(kind_of({{"kind", "minifloat"}, {"w_format", "fp8"}}), Error);
  EXPECT_THROW(kind_of({{"kind", "minifloat"}, {"format", "nvfp4"}}), Error);
  EXPECT_THROW(kind_of({{"kind", "integer"}, {"w_bits", 1}}), Error);
  EXPECT_THROW(kind_of({{"kind", "bit_flip"}, {"w_p_exp", 0.7}}), Error);
  AttentionSpec spec = heads(2, 2);
  spec.dropout = 0.1;
  EXPECT_THROW(attention_of({{"kind", "mx"}}, spec), Error);
}

}  // namespace medium_layers_test
}  // namespace refract
