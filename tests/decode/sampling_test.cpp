#include "decode/sampling.h"

#include <ATen/ops/arange.h>
#include <ATen/ops/tensor.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstdint>
#include <vector>

namespace refract {
namespace sampling_test {

// Evenly spaced uniform numbers make the frequencies exact to 1e-3.
std::vector<double> frequencies(const std::vector<float>& logits, const SamplingOptions& options) {
  constexpr int64_t kDraws = 10000;
  const at::Tensor rows = at::tensor(logits).expand({kDraws, static_cast<int64_t>(logits.size())});
  const at::Tensor uniform = at::arange(0.5, kDraws, 1.0, at::kFloat).div(kDraws);
  const at::Tensor drawn = sample_tokens(rows, options, uniform);
  std::vector<double> counts(logits.size());
  for (int64_t i = 0; i < kDraws; ++i) counts.at(drawn[i].item<int64_t>()) += 1.0 / kDraws;
  return counts;
}

TEST(Sampling, FollowsTheDistribution) {
  const std::vector<float> logits = {std::log(0.15f), std::log(0.5f), std::log(0.05f),
                                     std::log(0.3f)};
  SamplingOptions options;
  const std::vector<double> all = frequencies(logits, options);
  EXPECT_NEAR(all[1], 0.5, 1e-3);
  EXPECT_NEAR(all[2], 0.05, 1e-3);
  options.top_k = 2;
  EXPECT_NEAR(frequencies(logits, options)[3], 0.375, 1e-3);
  EXPECT_EQ(frequencies(logits, options)[0], 0);
  options.top_p = 0.6;  // of the two
  EXPECT_EQ(frequencies(logits, options)[3], 0);
  options = {};
  options.top_p = 0.7;  // 0.5 is not enough, 0.8 is
  EXPECT_NEAR(frequencies(logits, options)[1], 0.625, 1e-3);
  EXPECT_EQ(frequencies(logits, options)[0], 0);
  options = {};
  options.temperature = 0.5;  // squares the probabilities
  EXPECT_NEAR(frequencies(logits, options)[1], 0.25 / 0.365, 1e-3);
  options.temperature = 0;
  EXPECT_NEAR(frequencies(logits, options)[1], 1, 1e-9);
}

TEST(Sampling, TheEndsOfTheUniformNumbersStayInside) {
  const at::Tensor logits = at::tensor({0.0F, -1e9F, 0.0F, -1e9F}).expand({2, 4});
  const at::Tensor ends = at::tensor({0.0F, std::nextafter(1.0F, 0.0F)});
  for (double top_p : {1.0, 0.9}) {
    SamplingOptions options;
    options.top_p = top_p;
    const at::Tensor drawn = sample_tokens(logits, options, ends);
    EXPECT_EQ(drawn.sum().item<int64_t>(), 2) << top_p;  // 0 and 2
  }
}

}  // namespace sampling_test
}  // namespace refract
