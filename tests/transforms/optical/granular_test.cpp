// Ranges per token and per output channel: what they are, what they repair, their gradients.
#include <ATen/TensorOperators.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/linear.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "core/error.h"
#include "model/dense.h"
#include "ops/optical/linear/linear.h"
#include "transforms/one_layer.h"
#include "transforms/optical/granular_attention.h"
#include "transforms/optical/granular_product.h"

namespace refract {
namespace granular_test {

using nlohmann::json;
using testing::normal;
using testing::OneLayer;

std::string optical(json parameters) {
  parameters["kind"] = "optical";
  return parameters.dump();
}

json fine_rule() { return {{"q_x_per", "token"}, {"q_w_per", "channel"}, {"q_out_per", "token"}}; }

json with(json parameters, const json& more) {
  parameters.update(more);
  return parameters;
}

// |y - dense| / |dense| of the rows that are given.
double error_of(OneLayer& one, const at::Tensor& x, int64_t first, int64_t count) {
  const at::Tensor dense = at::linear(x, one.value("layer.weight")).narrow(0, first, count);
  const at::Tensor off = one.forward(x).narrow(0, first, count) - dense;
  return (off.norm() / dense.norm()).item<double>();
}

// With whole ranges it is the op's product, element by element.
TEST(GranularProductTest, WithWholeRangesItIsTheOp) {
  const at::Tensor x = normal({6, 12}), w = normal({16, 12});
  const at::Tensor x_range = at::tensor({-2.0F, 2.5F}), w_range = at::tensor({-1.5F, 2.0F}),
                   out_range = at::tensor({-6.0F, 7.0F});
  OpticalSettings settings;
  settings.levels = 64;
  const at::Tensor expected =
      optical_linear(x, w, std::nullopt, x_range, {w_range}, {out_range}, {16}, {}, true, settings);
  GranularProduct how;
  how.levels = 64;
  how.lut_min = settings.lut_min;
  how.a_range = x_range;
  how.b_range = w_range;
  how.out_range = out_range;
  testing::expect_same(granular_product(x, w, how), expected, 1e-12);
}

// The first token is a thousand times the others: one range leaves them no levels.
TEST(GranularProductTest, ATokensOwnRangeRepairsALargeToken) {
  at::Tensor x = normal({24, 12});
  x.select(0, 0).mul_(1000);
  OneLayer whole(optical(json::object())), fine(optical(fine_rule()));
  EXPECT_GT(error_of(whole, x, 1, 23), 0.9);
  EXPECT_LT(error_of(fine, x, 1, 23), 0.02);
  OneLayer inputs_only(optical({{"q_x_per", "token"}}));
  EXPECT_GT(error_of(inputs_only, x, 1, 23), 0.5) << "the large token's output needs a range too";
}

// One output channel is a hundred times the others.
TEST(GranularProductTest, AChannelsOwnRangeRepairsALargeChannel) {
  const at::Tensor x = normal({24, 12});
  const auto error = [&](const json& parameters) {
    OneLayer one(optical(with(parameters, {{"noise", false}, {"q_levels", 4096}})));
    one.value("layer.weight").select(0, 3).mul_(100);
    const at::Tensor dense = at::linear(x, one.value("layer.weight"));
    const at::Tensor off = (one.forward(x) - dense).select(1, 5);
    return (off.norm() / dense.select(1, 5).norm()).item<double>();
  };
  EXPECT_LT(error({{"q_w_per", "channel"}}), 0.2 * error({{"q_x_per", "token"}}));
}

TEST(GranularProductTest, TheGradientIsTheDenseLayers) {
  OneLayer one(optical(fine_rule()));
  at::Tensor x = normal({3, 5, 12}).set_requires_grad(true);
  const at::Tensor pull = normal({3, 5, 16});
  one.forward(x).mul(pull).sum().backward();
  const at::Tensor weight = one.value("layer.weight");
  testing::expect_same(x.grad(), pull.matmul(weight));
  testing::expect_same(one.arena.gradient(one.arena.find("layer.weight")),
                       pull.flatten(0, 1).t().matmul(x.detach().flatten(0, 1)));
}

TEST(GranularProductTest, RunningRangesMoveInTrainingOnly) {
  OneLayer one(optical({{"q_x_per", "token"}, {"q_w_per", "channel"}}));
  EXPECT_EQ(one.buffers.find("layer.x_range"), nullptr) << "a token's range is its own";
  const at::Tensor w_range = one.buffers.find("layer.w_range")->tensor;
  const at::Tensor out_range = one.buffers.find("layer.out_range")->tensor;
  const at::Tensor x = normal({8, 12});
  one.forward(x);
  EXPECT_GT(w_range.select(-1, 0).min().item<float>(), 1e30F) << "unset";
  ForwardContext context;
  context.training = true;
  context.clock = at::zeros({2}, at::kLong);
  one.layer->forward(context, x);
  const at::Tensor weight = one.value("layer.weight").to(at::kFloat);
  EXPECT_TRUE(at::equal(w_range, at::stack({weight.amin(1), weight.amax(1)}, -1)));
  const at::Tensor kept = out_range.clone();
  EXPECT_LT(kept[0].item<float>(), kept[1].item<float>());
  one.layer->forward(context, x.mul(3));
  EXPECT_GT(out_range[1].item<float>(), kept[1].item<float>());
}

TEST(GranularProductTest, RefusesWhatOnlyWholeTensorsHave) {
  EXPECT_THROW(OneLayer(optical(with(fine_rule(), {{"q_quantiles", {0.01, 0.99}}}))), Error);
  EXPECT_THROW(OneLayer(optical(with(fine_rule(), {{"compat", "mase-pretrain"}}))), Error);
  EXPECT_THROW(OneLayer(optical({{"q_x_per", "channel"}})), Error);
}

AttentionSpec spec(int64_t window = 0) {
  return {"model.layers.0.self_attn", 0, 4, 2, 8, 0.35, 0.0, window};
}

struct Attention {
  explicit Attention(const json& parameters, int64_t window = 0) {
    core = make_kind(optical(parameters), "the test")
               ->attention({arena, buffers, transformed}, spec(window));
  }
  at::Tensor forward(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                     bool training = false, KvCache* cache = nullptr) {
    ForwardContext context;
    context.training = training;
    context.clock = at::tensor({training ? int64_t{0} : kEvaluationStep, int64_t{0}}, at::kLong);
    context.cache = cache;
    return core->forward(context, q, k, v);
  }
  ParameterArena arena;
  BufferStore buffers;
  std::vector<TransformedLayer> transformed;
  std::unique_ptr<AttentionCore> core;
};

struct GranularAttentionTest : ::testing::Test {
  at::Tensor q = normal({2, 10, 4, 8}), k = normal({2, 10, 2, 8}), v = normal({2, 10, 2, 8});
  at::Tensor dense() const { return dense_attention(spec(), q, k, v); }
  double error(const json& parameters) const {
    return ((Attention(parameters).forward(q, k, v) - dense()).norm() / dense().norm())
        .item<double>();
  }
};

TEST_F(GranularAttentionTest, IsDenseAttentionUpToItsLevels) {
  EXPECT_LT(error(with(fine_rule(), {{"q_levels", 65536}, {"q_lut_min", 0}})), 1e-4);
  EXPECT_GT(error(with(fine_rule(), {{"q_levels", 8}})), 1e-2) << "levels count";
}

TEST_F(GranularAttentionTest, ASlidingWindowIsDenseAttentionsAndTheWholeRangesHaveNone) {
  Attention one(with(fine_rule(), {{"q_levels", 65536}, {"q_lut_min", 0}}), 4);
  EXPECT_TRUE(one.core->follows_window());
  const at::Tensor expected = SdpaAttention(spec(4)).forward({}, q, k, v);
  EXPECT_LT((one.forward(q, k, v) - expected).norm().item<double>(),
            1e-4 * expected.norm().item<double>());
  EXPECT_GT((dense() - expected).norm().item<double>(), 0.1 * expected.norm().item<double>());
  EXPECT_FALSE(Attention(json::object(), 4).core->follows_window());
}

TEST_F(GranularAttentionTest, RowsRepairALargeChannelAndALargeToken) {
  v.select(3, 2).mul_(300);
  q.select(1, 4).mul_(30);
  const at::Tensor others = at::tensor({0, 1, 3, 4, 5, 6, 7}, at::kLong);
  const auto small = [&](const at::Tensor& y) {
    return y.view({2, 10, 4, 8}).index_select(3, others);
  };
  const auto off = [&](const json& parameters) {
    const at::Tensor y = small(Attention(parameters).forward(q, k, v)), exact = small(dense());
    return ((y - exact).norm() / exact.norm()).item<double>();
  };
  const json operands = {{"q_x_per", "token"}, {"q_w_per", "channel"}, {"q_levels", 2048}};
  EXPECT_LT(off(operands), 0.5 * off({{"q_levels", 2048}}));
}

TEST_F(GranularAttentionTest, TheGradientOfQIsCloseToTheDenseOneWithManyLevels) {
  q.set_requires_grad(true);
  const at::Tensor pull = normal({2, 10, 32});
  Attention(with(fine_rule(), {{"q_levels", 65536}, {"noise", false}, {"q_lut_min", 0}}))
      .forward(q, k, v)
      .mul(pull)
      .sum()
      .backward();
  const at::Tensor ours = q.grad().clone();
  q.mutable_grad() = at::Tensor();
  dense().mul(pull).sum().backward();
  EXPECT_LT((ours - q.grad()).abs().max().item<double>(), 2e-3);
}

TEST_F(GranularAttentionTest, ATokenSeesNothingOfLaterOnes) {
  Attention one(fine_rule());
  one.forward(q, k, v, true);  // sets the range of v's channels
  const at::Tensor before = one.forward(q, k, v);
  for (at::Tensor* x : {&q, &k, &v}) x->narrow(1, 6, 4).mul_(7);
  EXPECT_TRUE(at::equal(one.forward(q, k, v).narrow(1, 0, 6), before.narrow(1, 0, 6)));
}

TEST_F(GranularAttentionTest, DecodingWithACacheIsTheWholeSequence) {
  Attention one(fine_rule(), 4);
  one.forward(q, k, v, true);
  const at::Tensor whole = one.forward(q, k, v);
  KvCache cache;
  cache.keys = {at::zeros({2, 2, 12, 8}, at::kDouble)};
  cache.values = {at::zeros({2, 2, 12, 8}, at::kDouble)};
  std::vector<at::Tensor> parts;
  for (const int64_t count : {3, 1, 1, 4, 1}) {
    const auto part = [&](const at::Tensor& x) { return x.narrow(1, cache.length, count); };
    parts.push_back(one.forward(part(q), part(k), part(v), false, &cache));
    cache.length += count;
  }
  testing::expect_same(at::cat(parts, 1), whole, 1e-9);
}

}  // namespace granular_test
}  // namespace refract
