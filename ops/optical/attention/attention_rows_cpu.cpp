#include <cmath>

#include "ops/common/math.h"
#include "ops/common/simd.h"
#include "ops/optical/attention/attention_rows.h"

namespace refract::optical {
namespace {

constexpr float kLog2E = 1.44269504f, kLn2 = 0.693147181f;

REFRACT_INLINE float score(const ScoreRow& a, float product, float column) {
  return add(add(mul(product, a.gain), a.row), column);
}

REFRACT_INLINE float xi_of_half(uint32_t half) {
  return (static_cast<float>(static_cast<int32_t>(half)) + 0.5f) * (1.0f / 65536.0f) - 0.5f;
}

}  // namespace

REFRACT_SIMD void patch_noise(const uint32_t* __restrict words, int odd, float* __restrict noise,
                              int64_t n) {
  const uint32_t* row = words + 2 * odd;
  for (int64_t first = 0; first < n; first += 16) {
    for (int two = 0; two < 4; ++two) {
      for (int j = 0; j < 2; ++j) {
        const uint32_t word = row[first + 4 * two + j];
        noise[first + 2 * two + j] = xi_of_half(word & 0xffffu);
        noise[first + 2 * two + j + 8] = xi_of_half(word >> 16);
      }
    }
  }
}

REFRACT_SIMD Range seen_in_scores(const float* __restrict product, const float* __restrict column,
                                  int64_t n, const ScoreRow& row) {
  const ScoreRow a = row;
  float lo = unset_range().lo, hi = unset_range().hi;
#pragma omp simd reduction(min : lo) reduction(max : hi)
  for (int64_t j = 0; j < n; ++j) {
    const float s = score(a, product[j], column[j]);
    lo = s < lo ? s : lo;
    hi = s > hi ? s : hi;
  }
  return {lo, hi};
}

REFRACT_SIMD Range score_levels(float* __restrict x, const float* __restrict column,
                                const float* __restrict noise, float shared, int64_t n,
                                const ScoreRow& row) {
  const ScoreRow a = row;
  float lo = unset_range().lo, hi = unset_range().hi;
  if (noise == nullptr) {
#pragma omp simd reduction(min : lo) reduction(max : hi)
    for (int64_t j = 0; j < n; ++j) {
      const float s = score(a, x[j], column[j]);
      lo = s < lo ? s : lo;
      hi = s > hi ? s : hi;
      x[j] = noisy_level(a.q, s, shared);
    }
    return {lo, hi};
  }
#pragma omp simd reduction(min : lo) reduction(max : hi)
  for (int64_t j = 0; j < n; ++j) {
    const float s = score(a, x[j], column[j]);
    lo = s < lo ? s : lo;
    hi = s > hi ? s : hi;
    x[j] = noisy_level(a.q, s, noise[j]);
  }
  return {lo, hi};
}

REFRACT_SIMD float probability_levels(float* __restrict x, float exponent, float top,
                                      float* __restrict sum, int64_t n) {
  float most = 0.0f, total = 0.0f, levels = 0.0f;
#pragma omp simd reduction(max : most)
  for (int64_t j = 0; j < n; ++j) most = x[j] > most ? x[j] : most;
#pragma omp simd reduction(+ : total)
  for (int64_t j = 0; j < n; ++j) {
    x[j] = simd::exp((x[j] - most) * exponent);
    total += x[j];
  }
  const float factor = top / total;
#pragma omp simd reduction(+ : levels)
  for (int64_t j = 0; j < n; ++j) {
    x[j] = round_even(x[j] * factor);
    levels += x[j];
  }
  *sum = levels;
  return -(most * exponent * kLog2E) - std::log2(total);
}

REFRACT_SIMD void score_gradients(float* __restrict x, float* __restrict grad, float exponent,
                                  float normalizer, float scale, int64_t n) {
  const float shift = normalizer * kLn2;
  float delta = 0.0f;
#pragma omp simd reduction(+ : delta)
  for (int64_t j = 0; j < n; ++j) {
    x[j] = simd::exp(x[j] * exponent + shift);
    delta += x[j] * grad[j];
  }
  for (int64_t j = 0; j < n; ++j) grad[j] = x[j] * (grad[j] - delta) * scale;
}

}  // namespace refract::optical
