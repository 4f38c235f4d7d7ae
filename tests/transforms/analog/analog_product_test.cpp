// Analog layers: what they compute beside their tiles (ranges, noise of training, chips), and their
// gradients.
#include "transforms/analog/analog_product.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/clamp.h>
#include <ATen/ops/linear.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/where.h>
#include <ATen/ops/zeros_like.h>
#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>
#include <initializer_list>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "core/error.h"
#include "core/random.h"
#include "ops/numeric/normal_noise.h"
#include "support/errors.h"
#include "support/kolmogorov_smirnov.h"
#include "support/training.h"
#include "transforms/analog/chip.h"
#include "transforms/analog/sram_product.h"
#include "transforms/analog/tiles.h"
#include "transforms/media/observer.h"
#include "transforms/one_layer.h"

namespace refract {
namespace analog_product_test {

using nlohmann::json;
using testing::expect_error;
using testing::expect_same;
using testing::normal;
using testing::OneLayer;

json analog(json parameters) {
  parameters["kind"] = "analog";
  return parameters;
}
// Nothing between the weight and the product.
json off(const json& more = json::object()) {
  json table = analog({{"x_bits", 0}, {"adc_bits", 0}, {"out_bound", 0}, {"out_noise", 0}});
  table.update(more);
  return table;
}

at::Tensor numbers(const std::vector<double>& values, int64_t rows) {
  return at::tensor(values, at::kDouble).view({rows, -1});
}

ForwardContext at_step(int64_t step) {
  ForwardContext context;
  context.training = step >= 0;
  context.seed = 7;
  context.clock = at::tensor({step, int64_t{0}}, at::kLong);
  return context;
}

at::Tensor forward(OneLayer& one, const at::Tensor& x, int64_t step) {
  return one.layer->forward(at_step(step), x);
}

// What the layer multiplies by: it is linear where nothing is between.
at::Tensor held_weight(OneLayer& one, int64_t step) {
  const at::NoGradGuard no_grad;
  const at::Tensor w = one.value("layer.weight");
  at::Tensor x = at::zeros_like(w.new_empty({w.size(1), w.size(1)}));
  x.fill_diagonal_(1);
  return forward(one, x, step).t();
}

TEST(AnalogProduct, WithEverythingOffItIsTheDenseLayer) {
  for (const int64_t rows : {0, 5, 512}) {
    OneLayer one(off({{"tile_rows", rows}}).dump());
    const at::Tensor x = normal({2, 3, 12});
    for (const int64_t step : {-1, 4}) {
      EXPECT_TRUE(forward(one, x, step).equal(at::linear(x, one.value("layer.weight"))))
          << rows << " " << step;
    }
  }
}

TEST(AnalogProduct, TilesOfALayerAreThoseOfItsInput) {
  OneLayer one(analog({{"tile_rows", 5}, {"out_noise", 0.1}}).dump());
  const at::Tensor x = normal({2, 3, 12});
  const at::Tensor w = one.value("layer.weight");
  AnalogParameters p;
  p.tile_rows = 5;
  p.out_noise = 0.1;
  const TileGrid grid(12, 16, p);
  const at::Tensor rows = x.view({6, 12}), y = at::zeros_like(rows.new_empty({6, 16}));
  const at::Tensor r = grid.largest_inputs(rows), g = grid.largest_weights(w, "column");
  const ForwardContext context = at_step(3);
  TileNoise noise{7, {}, {}, context.clock};
  for (int64_t tile = 0; tile < grid.tiles(); ++tile) {
    noise.out.push_back(stream_id(fmt::format("layer.tile{}.out", tile)));
    noise.reading.push_back(stream_id(fmt::format("layer.tile{}.reading", tile)));
  }
  add_tiled_product({grid, p, rows, w, r, g, g, noise}, y);
  expect_same(forward(one, x, 3).view({6, 16}), y, 1e-12);
}

// Each step and layer draws its own noise; a step draws it once, whatever the cut of the batch.
TEST(AnalogProduct, NoiseFollowsStepAndPlaceInTheBatch) {
  OneLayer one(analog({{"w_noise", 0.1}}).dump());
  const at::Tensor x = normal({4, 3, 12});
  const at::Tensor y = forward(one, x, 1);
  EXPECT_TRUE(y.equal(forward(one, x, 1)));
  EXPECT_FALSE(y.equal(forward(one, x, 2)));
  ForwardContext second = at_step(1);
  second.clock = at::tensor({int64_t{1}, int64_t{2}}, at::kLong);  // from the third sequence on
  expect_same(one.layer->forward(second, x.narrow(0, 2, 2)), y.narrow(0, 2, 2), 1e-12);
}

TEST(AnalogProduct, TrainingNoiseIsOfTheLargestWeight) {
  for (const char* per : {"column", "tensor"}) {
    OneLayer one(off({{"w_noise", 0.05}, {"w_noise_per", per}}).dump(), 400, 300);
    const at::Tensor w = one.value("layer.weight");
    const at::Tensor largest = std::string(per) == "column" ? w.abs().amax(1, true) : w.abs().max();
    const at::Tensor xi = (held_weight(one, 3) - w) / largest / 0.05;
    EXPECT_LT(testing::ks_distance(xi, testing::normal_distribution),
              testing::ks_limit(xi.numel()));
    EXPECT_TRUE(held_weight(one, -1).sub(w).abs().max().item<double>() < 1e-12) << "evaluations";
  }
}

TEST(AnalogProduct, WeightsAreCutOffAndHaveLevels) {
  OneLayer one(off({{"w_clip", 1.0}, {"w_bits", 3}, {"w_scale", "tensor"}}).dump());
  const at::Tensor w = one.value("layer.weight");
  const double s = w.std().item<double>();
  const at::Tensor expected = at::clamp(w, -s, s).mul(3 / s).round().mul(s / 3);
  expect_same(held_weight(one, -1), expected, 1e-12);
}

// ---- Chips

TEST(AnalogProduct, AChipIsOneChipAndAnotherNumberIsAnother) {
  OneLayer one(off({{"preset", "pcm"}, {"chip", 3}, {"time", 3600}}).dump());
  const at::Tensor w = held_weight(one, -1);
  OneLayer same(off({{"preset", "pcm"}, {"chip", 3}, {"time", 3600}}).dump());
  EXPECT_TRUE(held_weight(same, -1).equal(w));
  OneLayer other(off({{"preset", "pcm"}, {"chip", 4}, {"time", 3600}}).dump());
  EXPECT_FALSE(held_weight(other, -1).equal(w));
  // Another run's seed makes no other chip, and training is not on the chip.
  ForwardContext context = at_step(-1);
  context.seed = 99;
  const at::Tensor x = normal({1, 2, 12});
  EXPECT_TRUE(one.layer->forward(context, x).equal(forward(one, x, -1)));
  expect_same(held_weight(one, 5), one.value("layer.weight"), 1e-12);
}

TEST(AnalogProduct, TheSameChipAgesAndCompensationRestoresItsScale) {
  json table = off({{"preset", "pcm"}, {"drift_compensation", false}});
  OneLayer bare(table.dump(), 256, 64);
  table["drift_compensation"] = true;
  OneLayer compensated(table.dump(), 256, 64);
  const at::Tensor w = bare.value("layer.weight");
  const auto scale = [&](OneLayer& one, double time) {
    const ChipScope scope(Chip{false, 2, time});
    const at::Tensor held = held_weight(one, -1);
    return (held.mul(w).sum() / w.square().sum()).item<double>();
  };
  const auto error = [&](OneLayer& one, double time) {
    const ChipScope scope(Chip{false, 2, time});
    return ((held_weight(one, -1) - w).norm() / w.norm()).item<double>();
  };
  EXPECT_NEAR(scale(bare, 0), 1, 0.02);
  EXPECT_LT(scale(bare, 86400), 0.7);
  EXPECT_LT(scale(bare, 31536000), scale(bare, 86400));
  EXPECT_NEAR(scale(compensated, 31536000), 1, 0.2);
  EXPECT_LT(error(compensated, 1), error(compensated, 86400));
  EXPECT_LT(error(compensated, 86400), error(compensated, 31536000));
  const ChipScope ideal(Chip{true});
  expect_same(held_weight(bare, -1), w, 1e-12);
}

// The scope's chip is what the parameters of a rule would say.
TEST(AnalogProduct, AScopeIsTheRulesOwnParameters) {
  OneLayer ruled(analog({{"preset", "reram-wan"}, {"chip", 8}, {"time", 86400}}).dump());
  OneLayer scoped(analog({{"preset", "reram-wan"}}).dump());
  const at::Tensor x = normal({2, 3, 12});
  const at::Tensor plain = forward(scoped, x, -1);
  const ChipScope scope(Chip{false, 8, 86400});
  EXPECT_TRUE(forward(scoped, x, -1).equal(forward(ruled, x, -1)));
  EXPECT_FALSE(forward(scoped, x, -1).equal(plain));
}

// A tile that holds nothing has lost nothing.
TEST(AnalogProduct, CompensationLeavesATileOfZerosAlone) {
  for (const int64_t adc_bits : {0, 8}) {
    json table = off({{"preset", "pcm"}, {"time", 86400}, {"device_noise", 0}, {"tile_rows", 6}});
    table.update({{"adc_bits", adc_bits}, {"out_bound", adc_bits > 0 ? 10 : 0}});
    OneLayer one(table.dump());
    const at::Tensor w = one.value("layer.weight");
    w.narrow(1, 0, 6).zero_();
    one.arena.refresh_compute();
    const at::Tensor held = held_weight(one, -1);
    EXPECT_TRUE(held.narrow(1, 0, 6).eq(0).all().item<bool>()) << adc_bits;
    const at::Tensor ratio = held.narrow(1, 6, 6).abs().sum() / w.abs().sum();
    EXPECT_NEAR(ratio.item<double>(), 1, adc_bits > 0 ? 0.1 : 1e-9);
  }
}

// Those of the same second too, and those beyond what a whole number holds. What has drifted
// between is far less than a reading's noise.
TEST(AnalogProduct, EveryTimeHasItsOwnReadings) {
  OneLayer one(off({{"preset", "pcm"}, {"drift_compensation", false}}).dump());
  const auto differs = [&](double a, double b) {
    const auto at_time = [&](double t) {
      const ChipScope scope(Chip{false, 2, t});
      return held_weight(one, -1);
    };
    const at::Tensor first = at_time(a), second = at_time(b);
    EXPECT_TRUE(first.equal(at_time(a)));
    return ((first - second).norm() / first.norm()).item<double>();
  };
  EXPECT_GT(differs(1000.25, 1000.5), 1e-3);
  EXPECT_GT(differs(1e30, 1e30 * (1 + 1e-9)), 1e-3);
}

TEST(AnalogProduct, GaussianDevicesTakeTheirDeviationFromWhatItIsAShareOf) {
  for (const char* per : {"column", "tile", "tensor"}) {
    json table = off({{"preset", "gaussian"}, {"w_noise", 0.05}, {"w_noise_per", per}});
    table.update({{"tile_rows", 100}, {"tile_columns", 100}});
    AnalogParameters p;
    p.tile_rows = p.tile_columns = 100;
    const TileGrid grid(400, 300, p);
    for (const bool trained : {false, true}) {
      table["train_programming"] = trained;
      OneLayer one(table.dump(), 400, 300);
      const at::Tensor w = one.value("layer.weight");
      const at::Tensor largest = grid.for_weights(grid.largest_weights(w, per));
      const at::Tensor xi = (held_weight(one, trained ? 3 : -1) - w) / largest / 0.05;
      EXPECT_LT(testing::ks_distance(xi, testing::normal_distribution),
                testing::ks_limit(xi.numel()))
          << per << " " << trained;
    }
  }
}

TEST(AnalogProduct, ProgrammingInTrainingIsDrawnAnewInEachStep) {
  OneLayer one(off({{"preset", "pcm"}, {"train_programming", true}}).dump());
  const at::Tensor a = held_weight(one, 1), b = held_weight(one, 2);
  EXPECT_FALSE(a.equal(b));
  EXPECT_LT((a - one.value("layer.weight")).abs().mean().item<double>(),
            0.1 * one.value("layer.weight").abs().max().item<double>());
}

// ---- Ranges

TEST(AnalogProduct, ARunningRangeIsSetAndMovedInTrainingOnly) {
  OneLayer one(analog({{"x_range", "ema"}, {"tile_rows", 6}}).dump());
  const at::Tensor& range = one.buffers.find("layer.x_range")->tensor;
  ASSERT_EQ(range.sizes(), (std::vector<int64_t>{2, 2}));
  const at::Tensor x = normal({2, 3, 12}), later = normal({2, 3, 12});
  forward(one, x, -1);
  EXPECT_TRUE(range.select(1, 0).gt(range.select(1, 1)).all().item<bool>());
  forward(one, x, 0);
  forward(one, later, 1);
  const auto largest = [](const at::Tensor& of, int64_t tile) {
    return of.narrow(2, 6 * tile, 6).abs().max().item<double>();
  };
  for (const int64_t tile : {0, 1}) {
    const double expected = 0.9 * largest(x, tile) + 0.1 * largest(later, tile);
    EXPECT_NEAR(range[tile][1].item<double>(), expected, 1e-6);
    EXPECT_NEAR(range[tile][0].item<double>(), -expected, 1e-6);
  }
}

TEST(AnalogProduct, ALearnedRangeStartsFromTheDataAndFollowsItsGradient) {
  OneLayer one(
      off({{"x_range", "learned"}, {"tile_rows", 6}, {"x_init", 2}, {"x_decay", 0.5}}).dump());
  const at::Tensor range = one.value("layer.input_range");
  EXPECT_TRUE(range.eq(3).all().item<bool>());
  const at::Tensor x = normal({2, 30, 12}), later = normal({2, 30, 12});
  forward(one, x, 0);
  forward(one, later, 1);
  forward(one, later, 2);  // after x_init steps the data moves nothing
  const auto deviation = [](const at::Tensor& of, int64_t tile) {
    return of.narrow(2, 6 * tile, 6).std().item<double>();
  };
  for (const int64_t tile : {0, 1}) {
    EXPECT_NEAR(range[tile].item<double>(), 1.5 * (deviation(x, tile) + deviation(later, tile)),
                1e-6);
  }
  // The gradient, by the formula.
  range.copy_(at::tensor({0.5, 50.0}));
  one.arena.refresh_compute();
  one.arena.grads().zero_();
  const at::Tensor in = x.clone().requires_grad_(true), g = normal({2, 30, 16});
  const at::Tensor w = one.value("layer.weight"), y = forward(one, in, 3);
  y.backward(g);
  const at::NoGradGuard no_grad;
  const at::Tensor limits = at::tensor({0.5, 50.0}, at::kDouble).repeat_interleave(6);
  expect_same(y, at::linear(at::clamp(x, -limits, limits), w), 1e-12);
  const at::Tensor dx = at::matmul(g, w), inside = x.abs().le(limits);
  expect_same(in.grad(), at::where(inside, dx, at::zeros_like(dx)), 1e-12);
  const at::Tensor up = at::where(x.ge(limits), dx.clamp_max(0), at::zeros_like(dx));
  const at::Tensor down = at::where(x.le(-limits), dx.clamp_min(0), at::zeros_like(dx));
  const double first = 0.5 * (up - down).narrow(2, 0, 6).sum().item<double>();
  const at::Tensor found = one.arena.gradient(one.arena.find("layer.input_range"));
  EXPECT_NEAR(found[0].item<double>(), first, 1e-5);  // much is cut off: no decay
  EXPECT_NEAR(found[1].item<double>(), 0.5 * 50, 1e-5);
}

// A step's gradient does not depend on how its batch is cut.
TEST(AnalogProduct, ALearnedRangeDecaysOnceInAStep) {
  OneLayer one(off({{"x_range", "learned"}, {"x_init", 0}, {"x_decay", 0.5}}).dump());
  one.value("layer.input_range").fill_(50);
  one.arena.refresh_compute();
  const at::Tensor x = normal({4, 3, 12}), g = normal({4, 3, 16});
  for (const int64_t count : {1, 2, 4}) {
    double sum = 0;
    for (int64_t m = 0; m < count; ++m) {
      ForwardContext context = at_step(1);
      context.weights_changed = m == 0;
      const int64_t size = 4 / count, first = m * size;
      one.arena.grads().zero_();
      one.layer->forward(context, x.narrow(0, first, size)).backward(g.narrow(0, first, size));
      sum += one.arena.gradient(one.arena.find("layer.input_range"))[0].item<double>();
    }
    EXPECT_NEAR(sum, 0.5 * 50, 1e-5) << count;
  }
}

// ---- Gradients

TEST(AnalogProduct, TheGradientIsTheDenseProductsWithTheWeightAsItIsHeld) {
  OneLayer one(analog({{"w_noise", 0.2}, {"tile_rows", 5}}).dump());
  OneLayer bare(off({{"w_noise", 0.2}, {"tile_rows", 5}}).dump());
  const at::Tensor x = normal({2, 5, 12}).requires_grad_(true), g = normal({2, 5, 16});
  one.arena.grads().zero_();
  forward(one, x, 4).backward(g);
  const at::Tensor held = held_weight(bare, 4);
  const at::NoGradGuard no_grad;
  EXPECT_GT((held - one.value("layer.weight")).abs().max().item<double>(), 1e-3);
  expect_same(x.grad(), at::matmul(g, held), 1e-11);
  expect_same(one.arena.gradient(one.arena.find("layer.weight")),
              at::matmul(g.flatten(0, 1).t(), x.flatten(0, 1)), 1e-11);
}

// What the registry's test asks of the defaults, of what keeps or draws something more.
TEST(AnalogProduct, RunsResumeBitIdentically) {
  for (const json& more :
       {json{{"x_range", "ema"}, {"w_noise", 0.05}, {"w_clip", 2.5}},
        json{{"x_range", "learned"}, {"x_init", 7}},
        json{{"preset", "pcm"}, {"train_programming", true}, {"adc_range", "vector"}},
        json{{"preset", "sram"}, {"product_noise", 0.05}}}) {
    RunConfig config = tiny_config("analog_resumed");
    json rule = analog(more);
    rule.update({{"match", ".*_proj"}, {"tile_rows", 16}});
    config.transform = json::array({rule}).dump();
    config.checkpoint.every = 5;
    TinyRun whole(config);
    whole.trainer->run();
    std::filesystem::remove_all(Checkpoints(config.run.dir).path(12));
    TinyRun resumed(config);
    ASSERT_EQ(resumed.trainer->resume().value_or(-1), 10);
    resumed.trainer->run();
    EXPECT_TRUE(whole.model->arena().master().equal(resumed.model->arena().master())) << rule;
    auto& a = whole.model->buffers().all();
    auto& b = resumed.model->buffers().all();
    ASSERT_EQ(a.size(), b.size());
    for (size_t i = 0; i < a.size(); ++i) EXPECT_TRUE(a[i].tensor.equal(b[i].tensor)) << a[i].name;
  }
}

// ---- Others

TEST(AnalogProduct, AnObserverSeesTheInputAndSetsRunningRanges) {
  struct : MediumObserver {
    at::Tensor see(const Observation& seen) override {
      last = seen;
      quantized = seen.quantize(seen.values);
      return seen.values;
    }
    void see_channels(const std::string&, const at::Tensor&, const at::Tensor&) override {}
    Observation last;
    at::Tensor quantized;
  } observer;
  for (const char* range : {"dynamic", "ema"}) {
    OneLayer one(analog({{"x_range", range}, {"tile_rows", 5}, {"x_bits", 4}}).dump());
    const at::Tensor x = normal({2, 3, 12});
    const ObserverScope scope(observer);
    expect_same(forward(one, x, -1), at::linear(x, one.value("layer.weight")), 1e-12);
    EXPECT_EQ(observer.last.module, "layer");
    EXPECT_EQ(observer.last.role, "x");
    EXPECT_EQ(observer.last.range.defined(), std::string(range) == "ema");
    EXPECT_EQ(observer.last.values.size(0), std::string(range) == "ema" ? 3 : 3 * 6);
    // Levels of each row: whole multiples of a seventh of its largest value.
    const at::Tensor rows = observer.quantized;
    const at::Tensor steps = rows.div(observer.last.values.abs().amax(1, true)).mul(7);
    EXPECT_LT((steps - steps.round()).abs().max().item<double>(), 1e-9);
  }
}

// Without a converter a running range still cuts off, and so is shown.
TEST(AnalogProduct, ARunningRangeWithoutAConverterIsObserved) {
  struct : MediumObserver {
    at::Tensor see(const Observation& seen) override {
      ++calls;
      seen.range.select(1, 0).fill_(-0.5);
      seen.range.select(1, 1).fill_(0.5);
      EXPECT_GT(seen.levels, 1);
      EXPECT_TRUE(seen.quantize(seen.values).equal(seen.values.clamp(-0.5, 0.5)));
      return seen.values;
    }
    void see_channels(const std::string&, const at::Tensor&, const at::Tensor&) override {}
    int calls = 0;
  } observer;
  OneLayer one(off({{"x_range", "ema"}, {"tile_rows", 5}}).dump());
  const at::Tensor x = normal({2, 3, 12}), w = one.value("layer.weight");
  {
    const ObserverScope scope(observer);
    expect_same(forward(one, x, -1), at::linear(x, w), 1e-12);
  }
  EXPECT_EQ(observer.calls, 1);
  expect_same(forward(one, x, -1), at::linear(at::clamp(x, -0.5, 0.5), w), 1e-12);
  // Each vector's own range cuts nothing off.
  OneLayer own(off().dump());
  const ObserverScope scope(observer);
  expect_same(forward(own, x, -1), at::linear(x, own.value("layer.weight")), 1e-12);
  EXPECT_EQ(observer.calls, 1);
}

TEST(AnalogProduct, VectorsOfADigitalTileShareAnExponent) {
  const at::Tensor x = numbers({1.0, 0.3, -0.11, 0.7, 3.0, 5.0, 0.0, -8.1}, 2);
  // Largest 1: e = 0 (1e-8 above 1 it is 1), steps of 2^e / 8; largest 8.1: e = 4, steps of 2.
  const at::Tensor found = shared_exponent(x, 4, "e4m3");
  const at::Tensor expected = numbers({1.0, 0.25, 0.0, 0.75, 4.0, 4.0, 0.0, -8.0}, 2);
  expect_same(found, expected, 1e-12);
  // Two tiles of two.
  expect_same(shared_exponent(x, 2, "e5m2").narrow(0, 0, 1), numbers({1.0, 0.5, 0.0, 0.75}, 1),
              1e-12);
  expect_same(shared_exponent(x, 4, "int4").narrow(0, 0, 1),
              numbers({1.0, 2.0 / 7, -1.0 / 7, 5.0 / 7}, 1), 1e-12);
  EXPECT_TRUE(shared_exponent(x, 4, "none").is_same(x));
}

TEST(AnalogProduct, ADigitalTileMultipliesWhatItHolds) {
  OneLayer one(analog({{"preset", "sram"}, {"tile_rows", 5}}).dump());
  const at::Tensor x = normal({2, 3, 12}), w = one.value("layer.weight");
  const at::Tensor rows = shared_exponent(x.view({6, 12}), 5, "e4m3");
  expect_same(forward(one, x, -1).view({6, 16}), at::linear(rows, shared_exponent(w, 5, "e4m3")),
              1e-12);
  OneLayer noisy(analog({{"preset", "sram"},
                         {"tile_rows", 64},
                         {"x_format", "none"},
                         {"w_format", "none"},
                         {"product_noise", 0.053}})
                     .dump(),
                 64, 64);
  const at::Tensor many = normal({50, 20, 64});
  const at::Tensor exact = at::linear(many, noisy.value("layer.weight"));
  const at::Tensor xi = forward(noisy, many, 0).div(exact).sub(1).div(0.053);
  EXPECT_LT(testing::ks_distance(xi, testing::normal_distribution), testing::ks_limit(xi.numel()));
}

TEST(AnalogProduct, LiesBelowConditioningButForLearnedRanges) {
  OneLayer one(json{{"kind", "conditioned"}, {"method", "hadamard"}, {"over", off()}}.dump());
  const at::Tensor x = normal({2, 3, 12});
  expect_same(forward(one, x, -1), at::linear(x, one.value("layer.weight")), 1e-12);
  const json learned = {{"kind", "conditioned"}, {"over", analog({{"x_range", "learned"}})}};
  expect_error([&] { OneLayer refused(learned.dump()); }, {"learned", "ema"});
}

TEST(AnalogProduct, RefusesWhatNoTileIs) {
  const auto refuses = [](const json& more, std::initializer_list<std::string> words) {
    expect_error([&] { make_kind(analog(more).dump(), "the test"); }, words);
  };
  refuses({{"x_bits", 1}}, {"the test", "1 bit"});
  refuses({{"out_bound", 0}}, {"adc_bits = 8", "out_bound"});
  refuses({{"adc_range", "vector"}, {"adc_bits", 0}}, {"adc_bits"});
  refuses({{"preset", "gaussian"}}, {"w_noise"});
  refuses({{"preset", "flash"}}, {"preset"});
  refuses({{"time", -1}}, {"time"});
}

TEST(AnalogProduct, RefusesWhatWouldDoNothing) {
  const json ignored = {{"x_bits", 6},           {"x_range", "ema"},
                        {"out_noise", 0.1},      {"out_bound", 0},
                        {"adc_bits", 6},         {"adc_range", "vector"},
                        {"read_noise", 0.1},     {"ir_drop", 1},
                        {"w_scale", "tile"},     {"w_bits", 4},
                        {"w_clip", 2},           {"w_noise", 0.1},
                        {"w_noise_per", "tile"}, {"train_programming", true}};
  for (const auto& [name, value] : ignored.items()) {
    const json table = analog({{"preset", "sram"}, {name, value}});
    expect_error([&] { make_kind(table.dump(), "the test"); },
                 {fmt::format("{} does nothing", name), "sram"});
  }
  const json digital = {{"x_format", "int8"}, {"w_format", "none"}, {"product_noise", 0.1}};
  for (const auto& [name, value] : digital.items()) {
    for (const char* preset : {"ideal", "pcm"}) {
      const json table = analog({{"preset", preset}, {name, value}});
      expect_error([&] { make_kind(table.dump(), "the test"); },
                   {fmt::format("{} needs preset", name), "sram"});
    }
  }
  // As they are by default they may be written.
  make_kind(analog({{"preset", "sram"}, {"x_bits", 8}, {"w_noise", 0}}).dump(), "the test");
  make_kind(analog({{"x_format", "e4m3"}, {"product_noise", 0}}).dump(), "the test");
}

}  // namespace analog_product_test
}  // namespace refract
