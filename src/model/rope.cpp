#include "model/rope.h"

#include <ATen/ops/arange.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/pow.h>

#include <algorithm>
#include <cmath>
#include <numbers>
#include <utility>

#include "core/error.h"

namespace refract {
namespace {

// All in float and in Hugging Face's order of operations: at a large position a difference in the
// last bit of a frequency is a difference in the angle that a pretrained model would notice.

// Llama 3's stretching: low frequencies by `factor`, high ones not at all, a blend between.
float llama3_frequency(const ModelConfig& c, float frequency) {
  const float wavelength = static_cast<float>(2 * std::numbers::pi) / frequency;
  const float original = static_cast<float>(c.rope_original_max_position_embeddings);
  const float low = static_cast<float>(c.rope_low_freq_factor),
              high = static_cast<float>(c.rope_high_freq_factor);
  const float factor = static_cast<float>(c.rope_factor);
  if (wavelength < original / high) return frequency;
  if (wavelength > original / low) return frequency / factor;
  const float blend = (original / wavelength - low) / (high - low);
  return (1 - blend) * frequency / factor + blend * frequency;
}

// The base that dynamic scaling ("NTK-aware") takes for a sequence of this length.
double base_for(const ModelConfig& c, int64_t length) {
  if (c.rope_scaling != "dynamic" || length <= c.max_position_embeddings) return c.rope_theta;
  const auto width = static_cast<float>(c.rotary_width());
  const auto factor = static_cast<float>(c.rope_factor);
  const float stretch =
      factor * static_cast<float>(length) / static_cast<float>(c.max_position_embeddings) -
      (factor - 1);
  return static_cast<float>(c.rope_theta) * std::pow(stretch, width / (width - 2));
}

// Where the blend of yarn begins and ends, in pairs of channels: at the pair that turns `beta`
// times in the original context. The end is cut by the number of channels, as transformers does it.
std::pair<double, double> yarn_range(const ModelConfig& c) {
  const auto width = static_cast<double>(c.rotary_width());
  const auto pair_of = [&](double turns) {
    const auto original = static_cast<double>(c.rope_original_max_position_embeddings);
    return width * std::log(original / (turns * 2 * std::numbers::pi)) /
           (2 * std::log(c.rope_theta));
  };
  double low = pair_of(c.rope_beta_fast), high = pair_of(c.rope_beta_slow);
  if (c.rope_truncate) {
    low = std::floor(low);
    high = std::ceil(high);
  }
  low = std::max(low, 0.0);
  high = std::min(high, width - 1);
  return {low, high == low ? high + 0.001 : high};
}

void stretch_by_yarn(const ModelConfig& c, at::Tensor& frequencies, const at::Tensor& powers) {
  const auto [low, high] = yarn_range(c);
  const auto factor = static_cast<float>(c.rope_factor), begin = static_cast<float>(low),
             width = static_cast<float>(high - low);
  float* data = frequencies.mutable_data_ptr<float>();
  const float* power = powers.const_data_ptr<float>();
  for (int64_t i = 0; i < frequencies.numel(); ++i) {
    const float kept = 1 - std::clamp((static_cast<float>(i) - begin) / width, 0.F, 1.F);
    data[i] = 1 / (factor * power[i]) * (1 - kept) + data[i] * kept;
  }
}

// Of the pairs that turn, in a sequence of this length.
at::Tensor frequencies(const ModelConfig& c, int64_t length) {
  const int64_t width = c.rotary_width();
  const at::Tensor exponents = at::arange(0, width, 2, at::kFloat).div(static_cast<double>(width));
  const at::Tensor powers = at::pow(base_for(c, length), exponents);
  at::Tensor frequencies = powers.reciprocal();
  if (c.rope_scaling == "yarn") stretch_by_yarn(c, frequencies, powers);
  float* data = frequencies.mutable_data_ptr<float>();
  for (int64_t i = 0; i < frequencies.numel(); ++i) {
    if (c.rope_scaling == "llama3") data[i] = llama3_frequency(c, data[i]);
    if (c.rope_scaling == "linear") data[i] /= static_cast<float>(c.rope_factor);
  }
  return frequencies;
}

// What cos and sin are multiplied by, so that scores are by its square.
float attention_factor(const ModelConfig& c) {
  if (c.rope_scaling != "yarn") return 1;
  if (c.rope_attention_factor > 0) return static_cast<float>(c.rope_attention_factor);
  return static_cast<float>(0.1 * std::log(c.rope_factor) + 1);
}

}  // namespace

void check_rope_tables(const ModelConfig& c) {
  constexpr double kMost = 2.0 * (1 << 30);
  const int64_t pairs = c.head_dim / 2;
  const double bytes =
      2.0 * sizeof(float) * static_cast<double>(c.longest()) * static_cast<double>(pairs);
  if (bytes <= kMost) return;
  fail_usage(
      "{} = {} with head_dim = {} takes {:.1f} GiB of rotary tables, and at most 2 GiB are "
      "allowed; set it to the longest text that you need",
      c.longest() == c.max_position_embeddings ? "max_position_embeddings"
                                               : "max_position_embeddings stretched to",
      c.longest(), c.head_dim, bytes / (1 << 30));
}

std::pair<at::Tensor, at::Tensor> rope_tables(const ModelConfig& c) {
  return rope_tables_for(c, c.longest_cached());
}

std::pair<at::Tensor, at::Tensor> rope_tables_for(const ModelConfig& c, int64_t length) {
  check_rope_tables(c);
  const int64_t half = c.head_dim / 2;
  at::Tensor cos = at::empty({length, half}, at::TensorOptions().dtype(at::kFloat));
  at::Tensor sin = at::empty_like(cos);
  float *cos_data = cos.mutable_data_ptr<float>(), *sin_data = sin.mutable_data_ptr<float>();
  const at::Tensor frequency_tensor = frequencies(c, length);
  const float* frequency = frequency_tensor.const_data_ptr<float>();
  const int64_t turning = frequency_tensor.numel();
  const float factor = attention_factor(c);
  for (int64_t t = 0; t < length; ++t) {
    for (int64_t i = 0; i < half; ++i) {
      const bool turns = i < turning;
      const float angle = turns ? static_cast<float>(t) * frequency[i] : 0.F;
      cos_data[t * half + i] = std::cos(angle) * (turns ? factor : 1.F);
      sin_data[t * half + i] = std::sin(angle) * (turns ? factor : 1.F);
    }
  }
  return {cos, sin};
}

}  // namespace refract
