#include <ATen/Parallel.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/full.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/softmax.h>
#include <ATen/ops/tensor.h>
#include <torch/csrc/autograd/autograd.h>

#include <limits>

#include "ops/common/philox.h"
#include "ops/compare.h"
#include "ops/optical/attention.h"
#include "ops/optical/attention_dispatch.h"
#include "ops/optical/quantize.h"
#include "ops/optical/quantizer.h"

namespace refract {
namespace {

using testing::identical;
using testing::name_of;
using testing::normal;
using testing::Tensors;

struct Case {
  int64_t batch, queries, keys, heads, kv_heads, width;
  std::string name() const {
    std::string text;
    for (const int64_t n : {batch, queries, keys, heads, kv_heads, width}) {
      text += std::to_string(n) + " ";
    }
    return text;
  }
};

struct Inputs {
  at::Tensor q, k, v, grad;
  Inputs(const Case& c, at::ScalarType dtype)
      : q(normal({c.batch, c.queries, c.heads, c.width}, dtype)),
        k(normal({c.batch, c.keys, c.kv_heads, c.width}, dtype)),
        v(normal({c.batch, c.keys, c.kv_heads, c.width}, dtype)),
        grad(normal({c.batch, c.queries, c.heads, c.width}, dtype)) {}
  void to_cuda() {
    for (at::Tensor* t : {&q, &k, &v, &grad}) *t = t->to(at::kCUDA);
  }
};

// Seeding makes torch look for CUDA, which must not come before our library is opened.
void seed(uint64_t number) {
  testing::cuda_unavailable();
  at::manual_seed(number);
}

at::Tensor clock_of(int64_t step, int64_t first) {
  return at::tensor({step, first}, at::TensorOptions().dtype(at::kLong));
}

OpticalAttentionSettings settings_of(int64_t width) {
  OpticalAttentionSettings s;
  s.scale = 1.0 / std::sqrt(static_cast<double>(width));
  s.noise = true;
  s.train = true;
  s.clock = clock_of((int64_t{3} << 32) + 1, 5);
  s.seed = 17;
  s.streams = {-4, 9};
  return s;
}

at::Tensor unset_ranges() {
  const double inf = std::numeric_limits<double>::infinity();
  return at::tensor({inf, -inf}, at::kFloat).expand({5, 2}).contiguous();
}
// Narrow enough that every quantizer clips something.
at::Tensor set_ranges(int64_t width) {
  const double s = 1.5 * std::sqrt(static_cast<double>(width));
  return at::tensor({-2.0, 2.5, -2.5, 2.0, -s, 1.2 * s, -2.0, 2.2, -0.6, 0.5}, at::kFloat)
      .view({5, 2});
}

struct Outcome {
  at::Tensor out, normalizer, used, ranges;
  Tensors grads;
};

Outcome run_composite(const Inputs& x, const at::Tensor& ranges,
                      const OpticalAttentionSettings& s) {
  Outcome r;
  r.ranges = ranges.clone();
  const auto f = composite::optical_attention_forward(x.q, x.k, x.v, r.ranges, s);
  r.out = f.out;
  r.normalizer = f.normalizer;
  r.used = f.used;
  const auto g = composite::optical_attention_backward(x.grad, x.q, x.k, x.v, r.used, s);
  r.grads = {g.q, g.k, g.v};
  return r;
}

Outcome run_op(const Inputs& x, const at::Tensor& ranges, const OpticalAttentionSettings& s) {
  Outcome r;
  r.ranges = ranges.clone();
  at::Tensor mean;
  std::tie(r.out, r.normalizer, r.used, mean) =
      attention_op::forward(x.q, x.k, x.v, r.ranges, true, REFRACT_ATTENTION_SETTINGS_UNPACK(s));
  auto [q, k, v] = attention_op::backward(x.grad, x.q, x.k, x.v, r.out, r.normalizer, r.used, mean,
                                          REFRACT_ATTENTION_SETTINGS_UNPACK(s));
  r.grads = {q, k, v};
  return r;
}

// Sums are rounded differently, so a position that lies on the edge between two levels can fall to
// either side. A score that does changes its row's probabilities by about one level, and so the
// outputs of that row: `share` of the outputs and one row more may differ, by two levels of the
// output and what four levels of probabilities make of the largest value.
void expect_same_levels(const Outcome& actual, const Outcome& expected, const std::string& what,
                        double share) {
  const at::Tensor a = actual.out.to(at::kCPU, at::kDouble);
  const at::Tensor e = expected.out.to(at::kCPU, at::kDouble);
  ASSERT_EQ(a.sizes(), e.sizes()) << what;
  ASSERT_EQ(actual.out.scalar_type(), expected.out.scalar_type()) << what;
  const at::Tensor used = expected.used.to(at::kCPU, at::kDouble);
  const double step = (used[4][1].item<double>() - used[4][0].item<double>()) / 255;
  const double value = used[3].abs().max().item<double>();
  const double eps = actual.out.scalar_type() == at::kBFloat16 ? 1.0 / 256
                     : actual.out.scalar_type() == at::kHalf   ? 1.0 / 2048
                                                               : 1e-6;
  const double rounding = eps * e.abs().max().item<double>();
  const at::Tensor difference = a.sub(e).abs();
  const auto moved = difference.gt(0.5 * step + rounding).sum().item<int64_t>();
  EXPECT_LE(moved, e.size(3) + static_cast<int64_t>(share * static_cast<double>(e.numel())))
      << what << ": of " << e.numel() << " outputs";
  EXPECT_LE(difference.max().item<double>(), 2.01 * step + 4 * value / 255 + rounding) << what;
}

// ||a - e|| against ||e||, or against a part of the output's gradient where e vanishes, as q's does
// for a single key: there it is what rounding to the type of q leaves.
void expect_same_gradients(const Outcome& actual, const Outcome& expected, const at::Tensor& grad,
                           const std::string& what, double limit) {
  const double least = 0.1 * grad.to(at::kDouble).norm().item<double>();
  for (size_t i = 0; i < 3; ++i) {
    const at::Tensor a = actual.grads[i].to(at::kCPU, at::kDouble);
    const at::Tensor e = expected.grads[i].to(at::kCPU, at::kDouble);
    ASSERT_EQ(a.sizes(), e.sizes()) << what;
    ASSERT_EQ(actual.grads[i].scalar_type(), expected.grads[i].scalar_type()) << what;
    EXPECT_LE(a.sub(e).norm().item<double>(), limit * std::max(e.norm().item<double>(), least))
        << what << ": gradient " << i;
  }
}

void expect_same(const Outcome& actual, const Outcome& expected, const at::Tensor& grad,
                 const std::string& what, double gradient_limit) {
  constexpr double kShare = 1e-3;
  expect_same_levels(actual, expected, what, kShare);
  // One score a level further moves a row's sum by its probability times scale and step.
  const at::Tensor n = actual.normalizer.to(at::kCPU), m = expected.normalizer.to(at::kCPU);
  EXPECT_LE(n.sub(m).abs().max().item<double>(), 0.06) << what;
  EXPECT_LE(n.sub(m).abs().gt(1e-4).to(at::kDouble).mean().item<double>(), 40 * kShare + 0.02)
      << what;
  for (const auto& [mine, theirs, name] : {std::tuple(actual.used, expected.used, "used"),
                                           std::tuple(actual.ranges, expected.ranges, "ranges")}) {
    const at::Tensor a = mine.to(at::kCPU), e = theirs.to(at::kCPU);
    testing::expect_close(a.narrow(0, 0, 4), e.narrow(0, 0, 4), what + name, 4);
    // The output's, unquantized: a probability's level is 1/255 of a value.
    EXPECT_LE(a.sub(e).abs().max().item<double>(), 0.02) << what << " " << name;
  }
  expect_same_gradients(actual, expected, grad, what, gradient_limit);
}

// Where both forms compute in float, gradients differ by the scores that fell to another level;
// the CUDA kernels round the operands of the backward products to the type of q.
double gradient_limit(at::ScalarType dtype) { return dtype == at::kBFloat16 ? 1e-2 : 3e-3; }

const Case kCases[] = {{1, 1, 1, 1, 1, 8},      {2, 5, 5, 2, 1, 16},   {2, 67, 67, 4, 2, 32},
                       {1, 130, 130, 2, 2, 64}, {1, 3, 9, 2, 2, 16},   {2, 4, 9, 3, 1, 20},
                       {1, 1, 33, 2, 1, 32},    {1, 80, 200, 2, 1, 12}};

TEST(OpticalAttention, CpuAgreesWithComposite) {
  seed(1);
  for (const Case& c : kCases) {
    for (const auto dtype : {at::kFloat, at::kBFloat16, at::kHalf}) {
      const Inputs x(c, dtype);
      const OpticalAttentionSettings s = settings_of(c.width);
      for (const bool set : {false, true}) {
        const at::Tensor ranges = set ? set_ranges(c.width) : unset_ranges();
        const std::string what =
            c.name() + name_of(dtype) + (set ? " set ranges " : " unset ranges ");
        expect_same(run_op(x, ranges, s), run_composite(x, ranges, s), x.grad, what,
                    gradient_limit(dtype));
      }
    }
  }
}

TEST(OpticalAttention, StridedInputsAreRead) {
  seed(2);
  const Case c{2, 33, 33, 4, 2, 16};
  const at::Tensor joint = normal({2, 33, 8, 16}, at::kFloat);
  Inputs x(c, at::kFloat);
  x.q = joint.narrow(2, 0, 4);
  x.k = joint.narrow(2, 4, 2);
  x.v = joint.narrow(2, 6, 2);
  Inputs y = x;
  y.q = x.q.contiguous();
  y.k = x.k.transpose(1, 2).contiguous().transpose(1, 2);
  y.v = x.v.transpose(2, 3).contiguous().transpose(2, 3);
  const OpticalAttentionSettings s = settings_of(16);
  const Outcome a = run_op(x, unset_ranges(), s), b = run_op(y, unset_ranges(), s);
  EXPECT_TRUE(identical(a.out, b.out));
  for (size_t i = 0; i < 3; ++i) EXPECT_TRUE(identical(a.grads[i], b.grads[i])) << i;
}

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
  seed(3);
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
  seed(4);
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
  seed(5);
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
  seed(6);
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
  seed(7);
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

TEST(OpticalAttention, TheFutureHasNoEffect) {
  seed(8);
  Inputs x({2, 40, 40, 4, 2, 16}, at::kFloat);
  OpticalAttentionSettings s = settings_of(16);
  s.train = false;
  const at::Tensor before = optical_attention(x.q, x.k, x.v, set_ranges(16), s);
  x.k.narrow(1, 23, 17).normal_();
  x.v.narrow(1, 23, 17).normal_();
  const at::Tensor after = optical_attention(x.q, x.k, x.v, set_ranges(16), s);
  EXPECT_TRUE(identical(before.narrow(1, 0, 23), after.narrow(1, 0, 23)));
  EXPECT_FALSE(identical(before.narrow(1, 23, 17), after.narrow(1, 23, 17)));
}

TEST(OpticalAttention, DecodingDrawsWhatTheSequenceDraws) {
  seed(9);
  const Inputs x({2, 21, 21, 4, 2, 16}, at::kFloat);
  OpticalAttentionSettings s = settings_of(16);
  s.train = false;
  const at::Tensor whole = optical_attention(x.q, x.k, x.v, set_ranges(16), s);
  for (const int64_t begin : {0, 7, 8, 20}) {
    const int64_t count = std::min<int64_t>(21 - begin, 3), keys = begin + count;
    const at::Tensor part = optical_attention(x.q.narrow(1, begin, count), x.k.narrow(1, 0, keys),
                                              x.v.narrow(1, 0, keys), set_ranges(16), s);
    EXPECT_TRUE(identical(part, whole.narrow(1, begin, count))) << begin;
  }
}

TEST(OpticalAttention, PartsOfABatchDrawWhatTheWholeDraws) {
  seed(10);
  const Inputs x({4, 18, 18, 2, 1, 8}, at::kFloat);
  OpticalAttentionSettings s = settings_of(8);
  s.train = false;
  const at::Tensor whole = optical_attention(x.q, x.k, x.v, set_ranges(8), s);
  const auto part = [&](int64_t step, int64_t first) {
    s.clock = clock_of(step, first);
    return optical_attention(x.q.narrow(0, 2, 2), x.k.narrow(0, 2, 2), x.v.narrow(0, 2, 2),
                             set_ranges(8), s);
  };
  const int64_t step = (int64_t{3} << 32) + 1;
  EXPECT_TRUE(identical(part(step, 7), whole.narrow(0, 2, 2)));
  EXPECT_FALSE(identical(part(step, 8), whole.narrow(0, 2, 2)));
  EXPECT_FALSE(identical(part(step + 1, 7), whole.narrow(0, 2, 2)));
}

TEST(OpticalAttention, SharedHeadsAreRepeatedHeads) {
  seed(11);
  const Inputs x({2, 19, 19, 6, 2, 8}, at::kFloat);
  const OpticalAttentionSettings s = settings_of(8);
  const auto repeat = [](const at::Tensor& t) { return t.repeat_interleave(3, 2); };
  EXPECT_TRUE(identical(optical_attention(x.q, x.k, x.v, unset_ranges(), s),
                        optical_attention(x.q, repeat(x.k), repeat(x.v), unset_ranges(), s)));
}

TEST(OpticalAttention, NoiseIsPhiloxs) {
  for (const int64_t queries : {1, 4, 5}) {
    const int64_t keys = 37;
    const at::Tensor q = at::ones({2, queries, 3, 6}), k = at::ones({2, keys, 1, 6});
    OpticalAttentionSettings s = settings_of(6);
    const uint64_t step = (uint64_t{3} << 32) + 1;
    const at::Tensor scores = composite::optical_attention_score_xi(q, k, s);
    const at::Tensor out = composite::optical_attention_output_xi(q, k, s);
    ASSERT_EQ(scores.sizes(), at::IntArrayRef({2, 3, queries, keys}));
    ASSERT_EQ(out.sizes(), q.sizes());
    for (uint64_t b = 0; b < 2; ++b) {
      for (uint64_t h = 0; h < 3; ++h) {
        for (int64_t row = 0; row < queries; ++row) {
          const auto i = static_cast<uint64_t>(row + keys - queries);
          for (uint64_t j = 0; j < 37; ++j) {
            const uint64_t block =
                ((((b + 5) * 3 + h) << 19 | i / 2) << 19) + 4 * (j / 16) + j % 8 / 2;
            const PhiloxBlock drawn =
                philox(philox_key(17, static_cast<uint64_t>(-4)), step, block);
            const uint32_t word = drawn.word[2 * (i % 2) + j % 2];
            const uint32_t half = j % 16 < 8 ? word & 0xffff : word >> 16;
            EXPECT_FLOAT_EQ(scores[b][h][row][static_cast<int64_t>(j)].item<float>(),
                            (static_cast<float>(half) + 0.5f) / 65536 - 0.5f);
          }
          for (uint64_t d = 0; d < 6; ++d) {
            const uint64_t index = (((b + 5) << 20 | i) * 3 + h) * 6 + d;
            EXPECT_FLOAT_EQ(out[b][row][h][d].item<float>(),
                            philox_uniform(philox_word(philox_key(17, 9), step, index)) - 0.5f);
          }
        }
      }
    }
  }
}

TEST(OpticalAttention, DoesNotDependOnThreads) {
  seed(12);
  const Inputs x({2, 70, 70, 4, 2, 32}, at::kFloat);
  const OpticalAttentionSettings s = settings_of(32);
  const int threads = at::get_num_threads();
  at::set_num_threads(1);
  const Outcome one = run_op(x, unset_ranges(), s);
  at::set_num_threads(2);
  const Outcome two = run_op(x, unset_ranges(), s);
  at::set_num_threads(threads);
  EXPECT_TRUE(identical(one.out, two.out));
  EXPECT_TRUE(identical(one.ranges, two.ranges));
  for (size_t i = 0; i < 3; ++i) EXPECT_TRUE(identical(one.grads[i], two.grads[i])) << i;
}

TEST(OpticalAttention, MaseSwitches) {
  seed(13);
  const Inputs x({1, 24, 24, 2, 2, 16}, at::kFloat);
  const OpticalAttentionSettings s = settings_of(16);
  const Outcome right = run_op(x, unset_ranges(), s);

  OpticalAttentionSettings scaled = s;
  scaled.scaled_score_range = true;
  const Outcome by_scaled = run_op(x, unset_ranges(), scaled);
  testing::expect_close(by_scaled.ranges[2], right.ranges[2].mul(0.25), "scaled range");
  EXPECT_FALSE(identical(by_scaled.out, right.out)) << "scores were to be clipped";

  OpticalAttentionSettings shared = s;
  shared.shared_noise = optical::mase_shared_noise(0);
  const Outcome offset = run_op(x, set_ranges(16), shared);
  expect_same_levels(offset, run_composite(x, set_ranges(16), shared), "shared", 1e-3);
  shared.clock = clock_of(99, 3);
  EXPECT_TRUE(identical(offset.out, run_op(x, set_ranges(16), shared).out))
      << "the shared number never advances";

  OpticalAttentionSettings clipped = s;
  clipped.clipped_ranges = true;
  const at::Tensor narrow = set_ranges(16);
  const Outcome shrunk = run_op(x, narrow, clipped), free = run_op(x, narrow, s);
  for (const int role : {2, 4}) {
    EXPECT_GE(shrunk.ranges[role][0].item<float>(), narrow[role][0].item<float>()) << role;
    EXPECT_LE(shrunk.ranges[role][1].item<float>(), narrow[role][1].item<float>()) << role;
    EXPECT_LT(free.ranges[role][0].item<float>(), narrow[role][0].item<float>()) << role;
    EXPECT_GT(free.ranges[role][1].item<float>(), narrow[role][1].item<float>()) << role;
  }
  for (auto settings : {scaled, clipped}) {
    const Outcome a = run_op(x, narrow, settings), b = run_composite(x, narrow, settings);
    testing::expect_close(a.ranges.narrow(0, 0, 4), b.ranges.narrow(0, 0, 4), "ranges", 4);
  }
}

TEST(OpticalAttention, RefusesWhatDoesNotFit) {
  const Inputs x({1, 4, 4, 2, 1, 8}, at::kFloat);
  OpticalAttentionSettings s = settings_of(8);
  const auto refused = [&](const at::Tensor& q, const at::Tensor& k, const at::Tensor& ranges) {
    EXPECT_THROW(optical_attention(q, k, x.v, ranges, s), c10::Error);
  };
  refused(x.q[0], x.k, unset_ranges());
  refused(x.q, x.k.narrow(1, 0, 3), unset_ranges());
  refused(x.q.narrow(2, 0, 1).repeat({1, 1, 3, 1}), x.k.repeat({1, 1, 2, 1}), unset_ranges());
  refused(x.q, x.k.to(at::kHalf), unset_ranges());
  refused(x.q, x.k, unset_ranges().narrow(0, 0, 4));
  s.streams = {1};
  refused(x.q, x.k, unset_ranges());
  s = settings_of(8);
  s.scale = 0;
  refused(x.q, x.k, unset_ranges());
}

const Case kCudaCases[] = {
    {2, 64, 64, 2, 2, 64},    {2, 67, 67, 4, 2, 32},  {1, 200, 200, 6, 2, 64},
    {1, 333, 333, 2, 1, 128}, {1, 34, 100, 2, 2, 64}, {2, 1, 1, 2, 1, 32},
    {1, 130, 130, 3, 1, 128}, {1, 3, 8, 2, 2, 64},    {1, 20, 20, 2, 2, 24}};

TEST(OpticalAttention, CudaAgreesWithCpu) {
  REFRACT_CUDA_OR_SKIP();
  seed(14);
  for (const Case& c : kCudaCases) {
    for (const auto dtype : {at::kHalf, at::kBFloat16, at::kFloat}) {
      const Inputs x(c, dtype);
      Inputs on_device = x;
      on_device.to_cuda();
      const OpticalAttentionSettings s = settings_of(c.width);
      OpticalAttentionSettings device_settings = s;
      device_settings.clock = s.clock->to(at::kCUDA);
      for (const bool set : {false, true}) {
        const at::Tensor ranges = set ? set_ranges(c.width) : unset_ranges();
        const std::string what =
            c.name() + name_of(dtype) + (set ? " set ranges " : " unset ranges ");
        const Outcome cpu = run_op(x, ranges, s);
        const Outcome cuda = run_op(on_device, ranges.to(at::kCUDA), device_settings);
        expect_same(cuda, cpu, x.grad, what, gradient_limit(dtype));
      }
    }
  }
}

// Scores that span more than 2^200: no sum of exponentials fits without its row's maximum.
TEST(OpticalAttention, CudaSumsWideScores) {
  REFRACT_CUDA_OR_SKIP();
  seed(17);
  const Inputs x({1, 96, 96, 2, 2, 64}, at::kBFloat16);
  Inputs on_device = x;
  on_device.to_cuda();
  OpticalAttentionSettings s = settings_of(64);
  s.scale = 10;
  OpticalAttentionSettings device_settings = s;
  device_settings.clock = s.clock->to(at::kCUDA);
  const at::Tensor ranges = set_ranges(64);
  const Outcome cuda = run_op(on_device, ranges.to(at::kCUDA), device_settings);
  expect_same_levels(cuda, run_op(x, ranges, s), "wide scores", 1e-3);
  for (const at::Tensor& grad : cuda.grads) EXPECT_TRUE(grad.isfinite().all().item<bool>());
}

TEST(OpticalAttention, CudaIsDeterministic) {
  REFRACT_CUDA_OR_SKIP();
  seed(15);
  Inputs x({4, 512, 512, 6, 2, 64}, at::kBFloat16);
  x.to_cuda();
  OpticalAttentionSettings s = settings_of(64);
  s.clock = s.clock->to(at::kCUDA);
  const Outcome a = run_op(x, unset_ranges().to(at::kCUDA), s);
  const Outcome b = run_op(x, unset_ranges().to(at::kCUDA), s);
  EXPECT_TRUE(identical(a.out, b.out));
  EXPECT_TRUE(identical(a.ranges, b.ranges));
  for (size_t i = 0; i < 3; ++i) EXPECT_TRUE(identical(a.grads[i], b.grads[i])) << i;
}

TEST(OpticalAttention, CudaMaseSwitches) {
  REFRACT_CUDA_OR_SKIP();
  seed(16);
  const Inputs x({1, 96, 96, 2, 2, 64}, at::kBFloat16);
  Inputs on_device = x;
  on_device.to_cuda();
  for (int which = 0; which < 3; ++which) {
    OpticalAttentionSettings s = settings_of(64);
    s.scaled_score_range = which == 0;
    if (which == 1) s.shared_noise = optical::mase_shared_noise(0);
    s.clipped_ranges = which == 2;
    OpticalAttentionSettings device_settings = s;
    device_settings.clock = s.clock->to(at::kCUDA);
    for (const at::Tensor& ranges : {unset_ranges(), set_ranges(64)}) {
      expect_same(run_op(on_device, ranges.to(at::kCUDA), device_settings), run_op(x, ranges, s),
                  x.grad, "switch " + std::to_string(which) + " ", gradient_limit(at::kBFloat16));
    }
  }
}

}  // namespace
}  // namespace refract
