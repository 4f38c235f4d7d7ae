// Optical attention: what it computes (of which products it is composed, its gradient, its ranges).
#include <ATen/Context.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/softmax.h>
#include <torch/csrc/autograd/autograd.h>

#include "ops/optical/attention_inputs.h"
#include "ops/optical/matmul/matmul.h"
#include "ops/optical/quantize/quantize.h"

namespace refract {
namespace optical_attention_meaning_test {

using testing::identical;
using testing::set_ranges;
using testing::settings_of;
using testing::Tensors;
using testing::unset_ranges;
using Case = testing::AttentionCase;
using Inputs = testing::AttentionInputs;

at::Tensor hidden_keys(int64_t queries, int64_t keys) {
  return at::ones({queries, keys}, at::kBool).triu(keys - queries + 1);
}

// The same from the public products and the softmax, differentiated by autograd.
at::Tensor composed(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                    const at::Tensor& ranges, const OpticalAttentionSettings& s) {
  OpticalSettings product = s;
  product.train = false;
  const auto heads = [](const at::Tensor& x) { return x.transpose(1, 2).contiguous(); };
  const at::Tensor scores = optical_matmul(heads(q), heads(k).transpose(2, 3), ranges[0].clone(),
                                           ranges[1].clone(), ranges[2].clone(), product);
  const at::Tensor p =
      at::softmax(scores.mul(s.scale).masked_fill(hidden_keys(q.size(1), k.size(1)),
                                                  -std::numeric_limits<double>::infinity()),
                  -1);
  return optical_matmul(p, heads(v), at::tensor({0.0, 1.0}, at::kFloat), ranges[3].clone(),
                        ranges[4].clone(), product)
      .transpose(1, 2);
}

TEST(OpticalAttention, IsComposedOfOpticalProducts) {
  at::manual_seed(3);
  for (const Case& c : {Case{2, 7, 7, 2, 2, 8}, Case{1, 5, 12, 3, 3, 16}}) {
    for (const double shared : {0.0, 0.298}) {
      Inputs x(c, at::kDouble);
      for (at::Tensor* t : {&x.q, &x.k, &x.v}) t->requires_grad_(true);
      const at::Tensor ranges = set_ranges(c.width);
      OpticalAttentionSettings s = settings_of(c.width);
      s.noise = false;
      s.train = false;
      s.shared_noise = shared;
      const Tensors inputs{x.q, x.k, x.v};
      const at::Tensor mine = optical_attention(x.q, x.k, x.v, ranges.clone(), s);
      const at::Tensor theirs = composed(x.q, x.k, x.v, ranges, s);
      testing::expect_close(mine, theirs, c.name());
      const auto a = torch::autograd::grad({mine}, inputs, {x.grad});
      const auto b = torch::autograd::grad({theirs}, inputs, {x.grad});
      for (size_t i = 0; i < 3; ++i) {
        testing::expect_close(a[i], b[i], c.name() + "gradient " + std::to_string(i));
      }
    }
  }
}

// With so many levels that quantization vanishes, the gradient is dense attention's.
TEST(OpticalAttention, GradientsTendToDenseOnes) {
  at::manual_seed(4);
  Inputs x({2, 9, 9, 4, 4, 8}, at::kDouble);
  for (at::Tensor* t : {&x.q, &x.k, &x.v}) t->requires_grad_(true);
  OpticalAttentionSettings s = settings_of(8);
  s.noise = false;
  s.levels = 65536;
  s.lut_min = 0;
  const Tensors inputs{x.q, x.k, x.v};
  const at::Tensor mine = optical_attention(x.q, x.k, x.v, unset_ranges(), s);
  const at::Tensor scores =
      at::matmul(x.q.transpose(1, 2), x.k.transpose(1, 2).transpose(2, 3)).mul(s.scale);
  const at::Tensor dense =
      at::matmul(
          at::softmax(
              scores.masked_fill(hidden_keys(9, 9), -std::numeric_limits<double>::infinity()), -1),
          x.v.transpose(1, 2))
          .transpose(1, 2);
  EXPECT_LE(mine.sub(dense).abs().max().item<double>(), 3e-4);
  const auto a = torch::autograd::grad({mine}, inputs, {x.grad});
  const auto b = torch::autograd::grad({dense}, inputs, {x.grad});
  for (size_t i = 0; i < 3; ++i) {
    EXPECT_LE(a[i].sub(b[i]).abs().max().item<double>(), 2e-3) << i;
  }
}

TEST(OpticalAttention, HiddenScoresEnterNoRange) {
  at::manual_seed(5);
  for (const auto dtype : {at::kFloat, at::kDouble}) {
    const Case c{1, 6, 6, 1, 1, 4};
    Inputs x(c, dtype);
    x.k.select(1, 5).mul_(50);  // seen by the last query alone
    x.q.select(1, 5).mul_(0.01);
    OpticalAttentionSettings s = settings_of(4);
    s.lut_min = 0;  // its two values alone are rounded as codes
    at::Tensor ranges = unset_ranges();
    optical_attention(x.q, x.k, x.v, ranges, s);
    const at::Tensor q = optical_quantize(x.q, ranges[0], 256, 0.0, {}).squeeze(2).squeeze(0);
    const at::Tensor k = optical_quantize(x.k, ranges[1], 256, s.lut_min, {}).squeeze(2).squeeze(0);
    const at::Tensor scores = at::matmul(q, k.t());
    const at::Tensor seen = scores.masked_select(hidden_keys(6, 6).logical_not());
    EXPECT_NEAR(ranges[2][0].item<double>(), seen.min().item<double>(), 1e-4);
    EXPECT_NEAR(ranges[2][1].item<double>(), seen.max().item<double>(), 1e-4);
    EXPECT_GT(scores.abs().max().item<double>(), 2 * seen.abs().max().item<double>())
        << "the hidden scores were to be larger";
  }
}

TEST(OpticalAttention, QuantilesOfWhatIsSeen) {
  at::manual_seed(6);
  const Inputs x({2, 20, 20, 2, 1, 8}, at::kFloat);
  OpticalAttentionSettings s = settings_of(8);
  s.quantiles = {0.25, 0.75};
  at::Tensor ranges = unset_ranges();
  optical_attention(x.q, x.k, x.v, ranges, s);
  for (const auto& [role, data] : {std::pair(0, x.q), std::pair(1, x.k), std::pair(3, x.v)}) {
    EXPECT_NEAR(data.le(ranges[role][0]).to(at::kDouble).mean().item<double>(), 0.25, 0.01);
    EXPECT_NEAR(data.ge(ranges[role][1]).to(at::kDouble).mean().item<double>(), 0.25, 0.01);
  }
  const auto head = [](const at::Tensor& t) { return t.transpose(1, 2); };
  const at::Tensor q = optical_quantize(x.q, ranges[0], 256, 0.0, {});
  const at::Tensor k = optical_quantize(x.k, ranges[1], 256, s.lut_min, {});
  const at::Tensor seen =
      at::matmul(head(q), head(k).transpose(2, 3)).masked_select(hidden_keys(20, 20).logical_not());
  EXPECT_NEAR(seen.le(ranges[2][0]).to(at::kDouble).mean().item<double>(), 0.25, 0.01);
  EXPECT_NEAR(seen.ge(ranges[2][1]).to(at::kDouble).mean().item<double>(), 0.25, 0.01);
}

TEST(OpticalAttention, RangesMoveInTrainingOnly) {
  at::manual_seed(7);
  const Inputs x({1, 12, 12, 2, 1, 8}, at::kFloat);
  OpticalAttentionSettings s = settings_of(8);
  s.train = false;
  at::Tensor ranges = unset_ranges();
  const at::Tensor first = optical_attention(x.q, x.k, x.v, ranges, s);
  EXPECT_TRUE(identical(ranges, unset_ranges()));
  s.train = true;
  EXPECT_TRUE(identical(first, optical_attention(x.q, x.k, x.v, ranges, s)))
      << "an unset range is the data's own";
  const at::Tensor once = ranges.clone();
  EXPECT_FLOAT_EQ(once[0][0].item<float>(), x.q.min().item<float>());
  EXPECT_FLOAT_EQ(once[3][1].item<float>(), x.v.max().item<float>());
  optical_attention(x.q.mul(2), x.k, x.v, ranges, s);
  EXPECT_FLOAT_EQ(ranges[0][0].item<float>(),
                  0.9f * once[0][0].item<float>() + (1.0f - 0.9f) * 2 * x.q.min().item<float>());
  EXPECT_FLOAT_EQ(ranges[1][0].item<float>(), once[1][0].item<float>());
  s.train = false;
  const at::Tensor kept = ranges.clone();
  optical_attention(x.q.mul(3), x.k, x.v, ranges, s);
  EXPECT_TRUE(identical(kept, ranges));
}

}  // namespace optical_attention_meaning_test
}  // namespace refract
