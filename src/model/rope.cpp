#include "model/rope.h"

#include <ATen/ops/empty.h>

#include <cmath>
#include <numbers>

namespace refract {
namespace {

// Llama 3's stretching: low frequencies by `factor`, high ones not at all, a blend between.
double llama3_frequency(const ModelConfig& c, double frequency) {
  const double wavelength = 2 * std::numbers::pi / frequency;
  const double original = static_cast<double>(c.rope_original_max_position_embeddings);
  if (wavelength < original / c.rope_high_freq_factor) return frequency;
  if (wavelength > original / c.rope_low_freq_factor) return frequency / c.rope_factor;
  const double blend = (original / wavelength - c.rope_low_freq_factor) /
                       (c.rope_high_freq_factor - c.rope_low_freq_factor);
  return (1 - blend) * frequency / c.rope_factor + blend * frequency;
}

}  // namespace

std::pair<at::Tensor, at::Tensor> rope_tables(const ModelConfig& c) {
  const int64_t length = c.max_position_embeddings, half = c.head_dim / 2;
  at::Tensor cos = at::empty({length, half}, at::TensorOptions().dtype(at::kFloat));
  at::Tensor sin = at::empty_like(cos);
  float *cos_data = cos.mutable_data_ptr<float>(), *sin_data = sin.mutable_data_ptr<float>();
  for (int64_t i = 0; i < half; ++i) {
    double frequency = std::pow(c.rope_theta, -2.0 * static_cast<double>(i) / static_cast<double>(c.head_dim));
    if (c.rope_scaling == "llama3") frequency = llama3_frequency(c, frequency);
    if (c.rope_scaling == "linear") frequency /= c.rope_factor;
    // Hugging Face multiplies position and frequency in float; so do we, to have the same angle at large positions.
    const float rounded = static_cast<float>(frequency);
    for (int64_t t = 0; t < length; ++t) {
      const float angle = static_cast<float>(t) * rounded;
      cos_data[t * half + i] = std::cos(angle);
      sin_data[t * half + i] = std::sin(angle);
    }
  }
  return {cos, sin};
}

}  // namespace refract
