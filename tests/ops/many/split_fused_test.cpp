// Operations whose results leave them split.
//
// Samples for tests/parity/test_every_op.py:
// opcheck: split_norm_bfloat16(plain(2, 3, 8), plain(2, 3, 8), plain(2, 1, 8), None, 1e-5, False)
// opcheck: split_causal_attention(plain(2, 5, 24), 2, 2, 0.5)
#include <ATen/ops/matmul.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/softmax.h>
#include <gtest/gtest.h>

#include <limits>
#include <string>

#include "ops/dense/norm/norm.h"
#include "ops/many/split.h"
#include "support/cuda_guard.h"
#include "support/tolerances.h"

namespace refract {
namespace many_split_fused_test {

// What split rows stand for; their two copies of the high part are equal.
at::Tensor joined(const at::Tensor& parts) {
  const int64_t width = parts.size(-1) / 3;
  EXPECT_TRUE(parts.narrow(-1, 0, width).equal(parts.narrow(-1, width, width)));
  return parts.narrow(-1, 0, width)
      .to(at::kFloat)
      .add(parts.narrow(-1, 2 * width, width).to(at::kFloat));
}

// A split number is within 2^-16 of the number, below the tolerance of CUDA's fp32.
void expect_norms(at::Device device) {
  for (int64_t width : {4, 7, 64, 192, 384, 640, 1024, 1028}) {
    const auto draw = [&](int64_t rows) {
      return at::randn({2, rows, width}, at::kFloat).to(device);
    };
    const at::Tensor x = draw(5), residual = draw(5), weight = draw(1), bias = draw(1),
                     unit = at::ones({width}, x.options());
    for (const bool rms : {false, true}) {
      const std::string what = "width " + std::to_string(width) + (rms ? " rms" : "");
      const auto [y, sum] = split_norm_bfloat16(x, residual, weight, bias, 1e-5, rms);
      const auto [plain, plain_sum] = add_norm(x, residual, unit, std::nullopt, 1e-5, rms);
      EXPECT_TRUE(sum.equal(plain_sum)) << what;
      testing::expect_close(joined(y), plain.mul(weight).add(bias), what);
      const at::Tensor alone =
          std::get<0>(split_norm_bfloat16(x, std::nullopt, std::nullopt, std::nullopt, 1e-5, rms));
      testing::expect_close(joined(alone), norm(x, unit, std::nullopt, 1e-5, rms), what);
    }
  }
}

TEST(SplitNorm, IsTheNormSplit) { expect_norms(at::kCPU); }

TEST(SplitNorm, IsTheNormSplitOnCuda) {
  REFRACT_CUDA_OR_SKIP();
  expect_norms(at::Device(at::kCUDA, 0));
}

TEST(SplitNorm, RefusesWhatDoesNotFit) {
  const at::Tensor x = at::randn({2, 3, 8}, at::kFloat), flat = at::randn({8}, at::kFloat);
  EXPECT_THROW(split_norm_bfloat16(x, flat, {}, {}, 1e-5, false), c10::Error);
  EXPECT_THROW(split_norm_bfloat16(x, {}, flat, {}, 1e-5, false), c10::Error);
  EXPECT_THROW(split_norm_bfloat16(x.to(at::kDouble), {}, {}, {}, 1e-5, false), c10::Error);
}

template <class F>
std::string refusal(F f) {
  try {
    f();
  } catch (const c10::Error& error) {
    return error.what_without_backtrace();
  }
  return "nothing was refused";
}

TEST(Split, ARefusalNamesTheOpAndItsTensor) {
  const auto names = [](const std::string& text, const std::string& words) {
    EXPECT_NE(text.find(words), std::string::npos) << text;
  };
  const at::Tensor x = at::randn({2, 3, 12}, at::kFloat), wide = x.to(at::kDouble);
  names(refusal([&] { split_bfloat16(wide); }), "refract::split_bfloat16: expected x to be");
  names(refusal([&] { split_gelu_bfloat16(wide, true); }),
        "refract::split_gelu_bfloat16: expected x to be");
  names(refusal([&] { split_weight_bfloat16(wide); }),
        "refract::split_weight_bfloat16: expected w to be");
  names(refusal([&] { split_causal_attention(wide, 1, 1, 1.0); }),
        "refract::split_causal_attention: expected qkv to be");
  names(refusal([&] { split_norm_bfloat16(x, x.narrow(1, 0, 2), {}, {}, 1e-5, false); }),
        "got [2, 2, 12]");
}

struct Case {
  int64_t sequences, length, heads, kv_heads, width;
};

struct Attention {
  at::Tensor mixed;    // float64 [sequences, length, heads * width]
  double score_error;  // that split operands may make
  double largest;      // |v|
};

constexpr double kScale = 0.3, kSplitError = 3.0 / (1 << 16);

Attention exact(const at::Tensor& qkv, const Case& c) {
  const auto heads = [&](int64_t first, int64_t count) {
    return qkv.cpu()
        .to(at::kDouble)
        .narrow(2, first * c.width, count * c.width)
        .reshape({c.sequences, c.length, count, c.width})
        .repeat_interleave(c.heads / count, 2)
        .transpose(1, 2);
  };
  const at::Tensor q = heads(0, c.heads), k = heads(c.heads, c.kv_heads),
                   v = heads(c.heads + c.kv_heads, c.kv_heads);
  const at::Tensor future = at::ones({c.length, c.length}, at::kBool).triu(1);
  const at::Tensor scores = at::matmul(q, k.transpose(2, 3))
                                .mul(kScale)
                                .masked_fill(future, -std::numeric_limits<double>::infinity());
  return {at::matmul(at::softmax(scores, -1), v)
              .transpose(1, 2)
              .reshape({c.sequences, c.length, c.heads * c.width}),
          kSplitError * kScale * at::matmul(q.abs(), k.abs().transpose(2, 3)).max().item<double>(),
          v.abs().max().item<double>()};
}

// Scores that are off by e make probabilities off by 2 e of themselves; these and the values are
// split, and the result once more.
void expect_attention(at::Device device) {
  for (const Case& c :
       {Case{2, 32, 2, 2, 64}, Case{1, 33, 3, 3, 32}, Case{3, 64, 6, 6, 32}, Case{2, 100, 4, 2, 64},
        Case{1, 256, 6, 6, 64}, Case{2, 300, 6, 1, 32}, Case{1, 8, 4, 4, 16}}) {
    const at::Tensor qkv =
        at::randn({c.sequences, c.length, (c.heads + 2 * c.kv_heads) * c.width}, at::kFloat);
    const Attention expected = exact(qkv, c);
    const at::Tensor found =
        joined(split_causal_attention(qkv.to(device), c.heads, c.kv_heads, kScale));
    const double worst = found.cpu().to(at::kDouble).sub(expected.mixed).abs().max().item<double>();
    EXPECT_LT(worst, (2 * expected.score_error + 2 * kSplitError) * expected.largest)
        << "length " << c.length << " width " << c.width;
  }
}

TEST(SplitAttention, IsWithinItsBound) { expect_attention(at::kCPU); }

TEST(SplitAttention, IsWithinItsBoundOnCuda) {
  REFRACT_CUDA_OR_SKIP();
  expect_attention(at::Device(at::kCUDA, 0));
}

}  // namespace many_split_fused_test
}  // namespace refract
