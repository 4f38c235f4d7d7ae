#include "model/rope.h"

#include <ATen/ops/arange.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/pow.h>

#include <cmath>
#include <numbers>

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

// Of the pairs that turn.
at::Tensor frequencies(const ModelConfig& c) {
  const int64_t width = c.rotary_width();
  const at::Tensor exponents = at::arange(0, width, 2, at::kFloat).div(static_cast<double>(width));
  at::Tensor frequencies = at::pow(c.rope_theta, exponents).reciprocal();
  float* data = frequencies.mutable_data_ptr<float>();
  for (int64_t i = 0; i < frequencies.numel(); ++i) {
    if (c.rope_scaling == "llama3") data[i] = llama3_frequency(c, data[i]);
    if (c.rope_scaling == "linear") data[i] /= static_cast<float>(c.rope_factor);
  }
  return frequencies;
}

}  // namespace

void check_rope_tables(const ModelConfig& c) {
  constexpr double kMost = 2.0 * (1 << 30);
  const int64_t pairs = c.head_dim / 2;
  const double bytes = 2.0 * sizeof(float) * static_cast<double>(c.max_position_embeddings) *
                       static_cast<double>(pairs);
  if (bytes <= kMost) return;
  fail_usage(
      "max_position_embeddings = {} with head_dim = {} takes {:.1f} GiB of rotary tables, and at "
      "most 2 GiB are allowed; set it to the longest text that you need",
      c.max_position_embeddings, c.head_dim, bytes / (1 << 30));
}

std::pair<at::Tensor, at::Tensor> rope_tables(const ModelConfig& c) {
  check_rope_tables(c);
  const int64_t length = c.max_position_embeddings, half = c.head_dim / 2;
  at::Tensor cos = at::empty({length, half}, at::TensorOptions().dtype(at::kFloat));
  at::Tensor sin = at::empty_like(cos);
  float *cos_data = cos.mutable_data_ptr<float>(), *sin_data = sin.mutable_data_ptr<float>();
  const at::Tensor frequency_tensor = frequencies(c);
  const float* frequency = frequency_tensor.const_data_ptr<float>();
  const int64_t turning = frequency_tensor.numel();
  for (int64_t t = 0; t < length; ++t) {
    for (int64_t i = 0; i < half; ++i) {
      const float angle = i < turning ? static_cast<float>(t) * frequency[i] : 0.F;
      cos_data[t * half + i] = std::cos(angle);
      sin_data[t * half + i] = std::sin(angle);
    }
  }
  return {cos, sin};
}

}  // namespace refract
