// The kind `spiking`: levels with learned scales, neurons, and that spikes come to the levels.
#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/linspace.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/randint.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/round.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros_like.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>
#include <utility>
#include <vector>

#include "core/error.h"
#include "support/small_models.h"
#include "transforms/kind.h"
#include "transforms/model_builder.h"
#include "transforms/spiking/lsq.h"
#include "transforms/spiking/spike_time.h"
#include "transforms/spiking/spiking_operand.h"
#include "transforms/spiking/spiking_product.h"

namespace refract {
namespace spiking_test {

using nlohmann::json;

at::Tensor doubles(at::IntArrayRef sizes) {
  return at::randn(sizes, at::TensorOptions().dtype(at::kDouble));
}

ForwardContext context_of(bool training) {
  ForwardContext context;
  context.training = training;
  context.clock = at::tensor({training ? int64_t{0} : kEvaluationStep, int64_t{0}}, at::kLong);
  return context;
}

TEST(Spiking, LevelsAreHalfBelowZeroOrNone) {
  EXPECT_EQ(levels_of(32, true).low, -16);
  EXPECT_EQ(levels_of(32, true).high, 15);
  EXPECT_EQ(levels_of(5, true).low, -2);
  EXPECT_EQ(levels_of(5, true).high, 2);
  EXPECT_EQ(levels_of(32, false).low, 0);
  EXPECT_EQ(levels_of(32, false).high, 31);
}

// Element by element, as lsq.h states value and gradients.
TEST(Spiking, QuantizationAndItsGradientsAreTheStatedOnes) {
  const Levels levels{-4, 3};
  const double s = 0.3;
  const at::Tensor x = doubles({3, 5, 4}).requires_grad_(true), g = doubles({3, 5, 4});
  const at::Tensor scale = at::tensor(s, at::kDouble).requires_grad_(true);
  const at::Tensor y = lsq_quantize(x, scale, levels);
  y.backward(g);
  const auto* value = x.const_data_ptr<double>();
  const auto* grad = g.const_data_ptr<double>();
  double for_scale = 0;
  int64_t outside = 0;
  for (int64_t i = 0; i < x.numel(); ++i) {
    const double steps = value[i] / s;
    const double n = std::clamp(std::floor(steps + 0.5), -4.0, 3.0);
    const bool inside = steps > -4 && steps < 3;
    outside += inside ? 0 : 1;
    EXPECT_DOUBLE_EQ(y.const_data_ptr<double>()[i], n * s);
    EXPECT_DOUBLE_EQ(x.grad().const_data_ptr<double>()[i], inside ? grad[i] : 0);
    for_scale += grad[i] * (inside ? n - steps : n);
  }
  EXPECT_GT(outside, 0);
  EXPECT_NEAR(scale.grad().item<double>(), for_scale / std::sqrt(3 * 20.0), 1e-12);
}

struct Operand {
  explicit Operand(int64_t levels, bool is_probability = false)
      : operand({arena, buffers, transformed}, "layer.x", levels, is_probability) {
    arena.allocate(at::kCPU, at::kDouble, at::kDouble);
    arena.initialize(1);
  }
  // s0, as if data had set it.
  void set_start(double s) {
    buffers.all().front().tensor.copy_(at::tensor({-20.0F, static_cast<float>(s)}));
  }
  double start() { return buffers.all().front().tensor[1].item<double>(); }

  ParameterArena arena;
  BufferStore buffers;
  std::vector<TransformedLayer> transformed;
  SpikingOperand operand;
};

TEST(Spiking, TheScaleStartsFromTheDataOfTwentyCalls) {
  Operand one(32);
  double expected = 0;
  for (int call = 0; call < 25; ++call) {
    const at::Tensor x = doubles({4, 8}).mul(1 + call);
    const double seen = 2 * x.abs().mean().item<double>() / std::sqrt(15.0);
    if (call < 20) expected = call == 0 ? seen : 0.9 * expected + 0.1 * seen;
    const double used = one.operand.scale(context_of(true), x).item<double>();
    EXPECT_NEAR(used, expected, 1e-5 * expected) << call;
    EXPECT_NEAR(one.start(), expected, 1e-5 * expected) << call;
  }
  // Evaluations take it and leave it.
  const at::Tensor other = doubles({4, 8}).mul(100);
  EXPECT_NEAR(one.operand.scale(context_of(false), other).item<double>(), expected,
              1e-5 * expected);
  Operand fresh(32);
  EXPECT_NEAR(fresh.operand.scale(context_of(false), other).item<double>(),
              2 * other.abs().mean().item<double>() / std::sqrt(15.0), 1e-9);
  EXPECT_LT(fresh.start(), 0);  // unset
}

// As where a layer is computed twice for one step.
TEST(Spiking, TheScaleStaysWhereTheSameDataComeAgain) {
  for (int i = 0; i < 50; ++i) {
    Operand one(32);
    const at::Tensor x = doubles({4, 8});
    const double first = one.operand.scale(context_of(true), x).item<double>();
    EXPECT_EQ(one.operand.scale(context_of(true), x).item<double>(), first);
  }
}

TEST(Spiking, TheParameterMovesTheScaleByItsShare) {
  Operand one(32);
  one.set_start(0.25);
  at::Tensor p = one.arena.value(one.arena.find("layer.x_log_scale"));
  p.fill_(std::log(3.0));
  const at::Tensor x = doubles({4, 8});
  EXPECT_NEAR(one.operand.scale(context_of(false), x).item<double>(), 0.75, 1e-12);
  one.arena.grads().zero_();
  const at::Tensor g = doubles({4, 8});
  one.operand.quantized(context_of(false), x).backward(g);
  const at::Tensor scale = at::tensor(0.75, at::kDouble).requires_grad_(true);
  lsq_quantize(x, scale, levels_of(32, true)).backward(g);
  EXPECT_NEAR(one.arena.gradient(&one.arena.parameters().front()).item<double>(),
              0.75 * scale.grad().item<double>(), 1e-12);
}

// With a membrane, as a neuron is described: what the operand counts.
TEST(Spiking, NeuronsFireAsTheirMembranesSay) {
  constexpr double kTheta = 0.25;  // sums of eighths are exact
  for (const bool is_probability : {false, true}) {
    Operand one(8, is_probability);
    one.set_start(kTheta);
    const Levels levels = one.operand.levels();
    std::vector<double> membrane(64, kTheta / 2);
    std::vector<int64_t> count(64, 0);
    SpikeTime time;
    at::Tensor input = at::zeros_like(doubles({64}));
    double fired = 0;
    for (int64_t t = 1; t <= 40; ++t) {
      // Inputs of both signs for half of the time, and none after.
      const at::Tensor more =
          t > 20 ? at::zeros_like(input) : at::round(doubles({64}).mul(4)).div(8);
      input = input.add(more);
      if (t == 1) {
        time.begin();
      } else {
        time.advance();
      }
      const at::Tensor sum = one.operand.stepped(context_of(false), input, time, 3);
      for (int64_t i = 0; i < 64; ++i) {
        auto& v = membrane[static_cast<size_t>(i)];
        auto& n = count[static_cast<size_t>(i)];
        v += more[i].item<double>();
        int64_t spike = 0;
        if (v >= kTheta && n < levels.high) spike = 1;
        if (v < 0 && n > levels.low) spike = -1;
        v -= static_cast<double>(spike) * kTheta;
        n += spike;
        fired += std::abs(static_cast<double>(spike));
        ASSERT_EQ(sum[i].item<double>(), static_cast<double>(n) * kTheta) << t << " " << i;
      }
    }
    const at::Tensor settled = lsq_value(lsq_count(input, at::tensor(kTheta, at::kDouble), levels),
                                         at::tensor(kTheta), at::kDouble);
    for (int64_t i = 0; i < 64; ++i)
      EXPECT_EQ(settled[i].item<double>(),
                static_cast<double>(count[static_cast<size_t>(i)]) * kTheta);
    const SpikeCount& counted = time.counts().at("layer.x");
    EXPECT_EQ(counted.spikes.item<double>(), fired);
    EXPECT_EQ(counted.additions.item<double>(), 3 * fired);
    EXPECT_EQ(counted.values, 64);
  }
}

std::unique_ptr<Kind> kind_of(json parameters) {
  parameters["kind"] = "spiking";
  return make_kind(parameters.dump(), "the test");
}

// A layer in float whose products are exact: its weight in eighths, its scale a power of two.
struct Layer {
  explicit Layer(const json& parameters) : kind(kind_of(parameters)) {
    layer = kind->linear({arena, buffers, transformed}, {"layer", 24, 12});
    arena.allocate(at::kCPU, at::kFloat, at::kFloat);
    arena.initialize(3);
    at::Tensor weight = arena.value(arena.find("layer.weight"));
    weight.copy_(at::round(weight.mul(400)).div(8));
    buffers.all().front().tensor.copy_(at::tensor({-20.0F, 0.25F}));
  }
  at::Tensor forward(const at::Tensor& x) const { return layer->forward(context_of(false), x); }

  ParameterArena arena;
  BufferStore buffers;
  std::vector<TransformedLayer> transformed;
  std::unique_ptr<Kind> kind;
  std::unique_ptr<LinearLayer> layer;
};

TEST(Spiking, ALayerOnSpikesComesToTheQuantizedOneBitForBit) {
  const at::Tensor x = at::randn({3, 5, 24}).mul(1.5);
  const Layer quantized(json{{"levels", 32}});
  const at::Tensor expected = quantized.forward(x);
  double before = INFINITY;
  for (const int64_t steps : {1, 2, 4, 8}) {
    const Layer spiking({{"levels", 32}, {"mode", "spikes"}, {"time_steps", steps}});
    const double error = (spiking.forward(x) - expected).abs().max().item<double>();
    EXPECT_LT(error, before) << steps;
    EXPECT_GT(error, 0) << steps;
    before = error;
  }
  for (const int64_t steps : {16, 40}) {
    const Layer spiking({{"levels", 32}, {"mode", "spikes"}, {"time_steps", steps}});
    EXPECT_TRUE(spiking.forward(x).equal(expected)) << steps;
  }
}

// Each step's product has more digits than bfloat16, and only what they come to is rounded.
TEST(Spiking, InBfloat16OnlyTheSumOfAllStepsIsRounded) {
  constexpr double kScale = 0x1p-5;
  const SpikingParameters parameters{256, true, 130};
  ParameterArena arena;
  BufferStore buffers;
  std::vector<TransformedLayer> transformed;
  const Build build{arena, buffers, transformed};
  const auto linear = make_spiking_linear(build, "layer", parameters);
  const auto scores = make_spiking_scores(build, "attention", parameters, 0);
  arena.allocate(at::kCPU, at::kFloat, at::kBFloat16);
  arena.initialize(1);
  for (BufferStore::Buffer& buffer : buffers.all())
    buffer.tensor.copy_(at::tensor({-20.0, kScale}));
  const at::Tensor s = at::tensor(static_cast<float>(kScale)), x = at::randn({2, 7, 64}),
                   other = at::randn({2, 9, 64});
  const at::Tensor weight = at::round(at::randn({12, 64}).mul(64)).clamp(-255, 255).div(64);
  const auto levels = [&](const at::Tensor& t) {
    return lsq_count(t.to(at::kBFloat16), s, levels_of(256, true));
  };
  const auto half = [](const at::Tensor& t) { return t.to(at::kBFloat16); };
  EXPECT_TRUE(linear->multiply(context_of(false), half(x), half(weight))
                  .equal(half(at::matmul(levels(x), weight.t()).mul(kScale))));
  EXPECT_TRUE(
      scores->multiply(context_of(false), half(x), half(other))
          .equal(
              half(at::matmul(levels(x), levels(other).transpose(1, 2)).mul(kScale).mul(kScale))));
}

// Query i sees the keys up to its own, at most `window`; each key head has two query heads.
TEST(Spiking, SpikesAddToWhatTheMaskAndItsWindowShow) {
  for (const int64_t window : {0, 3, 20}) {
    AttentionSpec spec;
    spec.name = "attention";
    spec.num_heads = 4;
    spec.num_kv_heads = 2;
    spec.head_dim = 8;
    spec.scale = 0.35;
    spec.window = window;
    ParameterArena arena;
    BufferStore buffers;
    std::vector<TransformedLayer> transformed;
    const auto core = kind_of(json::object())->attention({arena, buffers, transformed}, spec);
    arena.allocate(at::kCPU, at::kFloat, at::kFloat);
    arena.initialize(1);
    SpikeTime time;
    time.begin();
    core->forward(context_of(false), at::randn({2, 9, 4, 8}), at::randn({2, 9, 2, 8}),
                  at::randn({2, 9, 2, 8}));
    double pairs = 0;
    for (int64_t query = 0; query < 9; ++query) {
      for (int64_t key = 0; key <= query; ++key)
        pairs += window == 0 || query - key < window ? 1 : 0;
    }
    const auto each = [&](const std::string& operand) {
      const SpikeCount& count = time.counts().at("attention." + operand);
      EXPECT_GT(count.spikes.item<double>(), 0) << operand;
      return count.additions.item<double>() / count.spikes.item<double>();
    };
    EXPECT_NEAR(each("q"), pairs / 9, 1e-9) << window;
    EXPECT_NEAR(each("k"), 2 * pairs / 9, 1e-9) << window;
    EXPECT_NEAR(each("probabilities"), 8, 1e-9) << window;
    EXPECT_NEAR(each("v"), 2 * pairs / 9, 1e-9) << window;
  }
}

// Scores are whole numbers times both scales; what comes after them is rounded: float's last bits.
TEST(Spiking, AttentionOnSpikesComesToTheQuantizedOne) {
  AttentionSpec spec;
  spec.name = "model.layers.0.self_attn";
  spec.num_heads = 4;
  spec.num_kv_heads = 2;
  spec.head_dim = 8;
  spec.scale = 0.35;
  const at::Tensor q = at::randn({2, 9, 4, 8}), k = at::randn({2, 9, 2, 8}),
                   v = at::randn({2, 9, 2, 8});
  const auto output = [&](const json& parameters) {
    ParameterArena arena;
    BufferStore buffers;
    std::vector<TransformedLayer> transformed;
    const auto core = kind_of(parameters)->attention({arena, buffers, transformed}, spec);
    EXPECT_EQ(arena.parameters().size(), 4U);
    EXPECT_EQ(buffers.all().size(), 4U);
    arena.allocate(at::kCPU, at::kFloat, at::kFloat);
    arena.initialize(1);
    return core->forward(context_of(false), q, k, v);
  };
  const at::Tensor expected = output({{"levels", 16}});
  const auto error = [&](int64_t steps) {
    return (output({{"levels", 16}, {"mode", "spikes"}, {"time_steps", steps}}) - expected)
        .abs()
        .max()
        .item<double>();
  };
  EXPECT_LT(error(15), 1e-5);
  EXPECT_LT(error(60), 1e-5);
  EXPECT_GT(error(2), 1e-2);
}

// The test that must hold. Every operand of every layer: biases, norms, softmax and activations are
// between them.
TEST(Spiking, TheSpikingModelComesToTheQuantizedOneBitForBit) {
  const json rule = {{"match", ".*(_proj|self_attn)"}, {"kind", "spiking"}, {"levels", 16}};
  for (const auto& [name, config] :
       {std::pair{"gpt2", testing::small_gpt2()}, {"llama", testing::small_llama()}}) {
    const TransformedModel model = build_model(config, json::array({rule}).dump(), name);
    Decoder& decoder = *model.decoder;
    decoder.allocate(at::kCPU, at::kFloat);
    decoder.initialize(5);
    for (const Parameter& parameter : decoder.arena().parameters()) {  // biases too
      at::Tensor value = decoder.arena().value(&parameter);
      if (!parameter.name.ends_with("_log_scale")) value.add_(at::randn(value.sizes()).mul(0.1));
    }
    decoder.arena().refresh_compute();
    const at::NoGradGuard no_grad;
    const at::Tensor tokens = at::randint(config.vocab_size, {3, 11}, at::kLong);
    for (const bool trained : {false, true}) {  // whether scales are kept, or of the data
      if (trained) decoder.hidden(context_of(true), tokens);
      const ForwardContext context = context_of(false);
      const at::Tensor quantized = decoder.hidden(context, tokens);
      SpikeTime time;
      time.rest();
      EXPECT_TRUE(decoder.hidden(context, tokens).equal(quantized)) << name;
      std::vector<double> errors;
      time.begin();
      for (int64_t t = 1; t <= 200; ++t) {
        if (t > 1) time.advance();
        errors.push_back((decoder.hidden(context, tokens) - quantized).abs().max().item<double>());
      }
      EXPECT_GT(errors.front(), 0.1) << name;
      EXPECT_EQ(errors.back(), 0) << name;
      EXPECT_TRUE(time.biases_are_in());
    }
  }
}

TEST(Spiking, AnotherBatchBeginsAnew) {
  Operand one(16);
  one.set_start(0.25);
  SpikeTime time;
  const at::Tensor x = doubles({7}), other = doubles({3});
  time.begin();
  const at::Tensor first = one.operand.stepped(context_of(false), x, time, 1);
  time.advance();
  one.operand.stepped(context_of(false), x, time, 1);
  EXPECT_THROW(one.operand.stepped(context_of(false), other, time, 1), Error);
  time.begin();
  one.operand.stepped(context_of(false), other, time, 1);
  time.begin();
  EXPECT_TRUE(one.operand.stepped(context_of(false), x, time, 1).equal(first));
  EXPECT_EQ(time.counts().at("layer.x").values, 7 + 3 + 7);
}

TEST(Spiking, TrainingOnSpikesIsTrainingOnLevels) {
  const auto forward = [](const char* mode, bool training) {
    const Layer layer({{"mode", mode}, {"time_steps", 1}});
    const at::Tensor x = at::linspace(-3, 3, 24).view({1, 24});
    return layer.layer->forward(context_of(training), x);
  };
  EXPECT_TRUE(forward("spikes", true).equal(forward("quantized", true)));
  EXPECT_FALSE(forward("spikes", false).equal(forward("quantized", false)));
}

TEST(Spiking, EnergyGoesWithLevelsAndWithSpikes) {
  EnergyConstants constants;
  constants.mac_core = 64;
  constants.mac_system = 64;
  constants.spike_add = 2;
  constants.spikes_per_value = 3;
  ProductShape linear{10, 20};
  linear.multiplications = 200;
  ProductShape scores = linear;
  scores.head_dim = 10;
  EXPECT_DOUBLE_EQ(kind_of({{"levels", 16}})->energy(linear, constants).total(), 200 * 4 * 16);
  EXPECT_DOUBLE_EQ(kind_of({{"levels", 16}})->energy(scores, constants).total(), 200 * 4 * 4);
  EXPECT_DOUBLE_EQ(kind_of({{"mode", "spikes"}})->energy(linear, constants).total(), 200 * 3 * 2);
  EXPECT_DOUBLE_EQ(kind_of({{"mode", "spikes"}})->energy(scores, constants).total(),
                   2 * 200 * 3 * 2);
}

}  // namespace spiking_test
}  // namespace refract
