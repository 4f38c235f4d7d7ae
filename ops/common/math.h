// Elementary functions for float in plain arithmetic, so that a loop over them vectorises
// (REFRACT_SIMD); the double forms call the library and serve gradient checks. Polynomials are
// minimax fits of ours (Remez). Measured bounds, see tests/ops/common/math_test.cpp:
//   exp 2 ulp; tanh 3 ulp; erf 3 ulp; log 2 ulp.
#pragma once
#include <cmath>

#include "ops/common/simd.h"

namespace refract::simd {

// exp(x): 0 below -87.33 (no subnormal results), infinity above 88.72, NaN of NaN.
REFRACT_INLINE float exp(float x) {
  constexpr float kLow = -87.33654f, kHigh = 88.72283f, kRound = 12582912.0f;  // 1.5 * 2^23
  float clamped = x < kLow ? kLow : x;
  clamped = clamped > kHigh ? kHigh : clamped;
  // x = n ln 2 + r with |r| <= ln(2) / 2; ln 2 in two parts keeps r exact.
  const float shifted = clamped * 1.44269504f + kRound;
  const float n = shifted - kRound;
  const float r = (clamped - n * 0.693145751953125f) - n * 1.42860682e-6f;
  float p = 0.001395063155f;
  p = p * r + 0.00836896993f;
  p = p * r + 0.0416662037f;
  p = p * r + 0.1666651817f;
  p = p * r + 0.5f;
  p = (p * (r * r) + r) + 1.0f;
  // 2^n in two factors: n = 128 has no float of its own.
  const int32_t k = std::bit_cast<int32_t>(shifted) - std::bit_cast<int32_t>(kRound);
  const int32_t half = k >> 1;
  const float s1 = std::bit_cast<float>((half + 127) << 23);
  const float s2 = std::bit_cast<float>((k - half + 127) << 23);
  float y = p * s1 * s2;
  y = x < kLow ? 0.0f : y;
  return x > kHigh ? HUGE_VALF : y;
}
inline double exp(double x) { return std::exp(x); }

REFRACT_INLINE float tanh(float x) {
  const float t = std::fabs(x);
  const float s = x * x;
  float p = -0.005720821208f;
  p = p * s + 0.0206538072f;
  p = p * s - 0.05374443187f;
  p = p * s + 0.1333150178f;
  p = p * s - 0.3333328428f;
  const float small = p * s * x + x;
  const float large = 1.0f - 2.0f / (exp(2.0f * t) + 1.0f);
  return t < 0.6f ? small : std::copysign(large, x);
}
inline double tanh(double x) { return std::tanh(x); }

REFRACT_INLINE float erf(float x) {
  const float t = std::fabs(x);
  const float s = x * x;
  float p = 7.889123243e-5f;
  p = p * s - 0.0008020842331f;
  p = p * s + 0.005189535449f;
  p = p * s - 0.02685444464f;
  p = p * s + 0.1128360018f;
  p = p * s - 0.3761262714f;
  p = p * s + 0.1283791659f;
  const float small = p * x + x;
  // log(erfc(t)) on [1, 4]; beyond 4 erf rounds to 1.
  const float c = t > 4.0f ? 4.0f : t;
  float q = -2.168674301e-5f;
  q = q * c + 0.0004413350467f;
  q = q * c - 0.004204554922f;
  q = q * c + 0.02520823696f;
  q = q * c - 0.1084185442f;
  q = q * c - 0.6332199258f;
  q = q * c - 1.129578407f;
  q = q * c + 0.0001880362496f;
  const float large = 1.0f - exp(q);
  return t < 1.0f ? small : std::copysign(large, x);
}
inline double erf(double x) { return std::erf(x); }

// log(x) for a positive, finite, normal x.
REFRACT_INLINE float log(float x) {
  // x = 2^k m with m in [sqrt(1/2), sqrt(2)).
  const int32_t bits = std::bit_cast<int32_t>(x);
  const int32_t k = (bits - 0x3f3504f3) >> 23;
  const float u =
      std::bit_cast<float>(bits - static_cast<int32_t>(static_cast<uint32_t>(k) << 23)) - 1.0f;
  float p = 0.06915545865f;
  p = p * u - 0.1178986593f;
  p = p * u + 0.1187292446f;
  p = p * u - 0.1238433505f;
  p = p * u + 0.1421866398f;
  p = p * u - 0.1666925181f;
  p = p * u + 0.2000222631f;
  p = p * u - 0.2499998658f;
  p = p * u + 0.3333331045f;
  const float n = static_cast<float>(k);
  const float v = u * u;
  const float tail = n * 1.42860682e-6f + (p * u * v - 0.5f * v);
  return n * 0.693145751953125f + (u + tail);
}
inline double log(double x) { return std::log(x); }

}  // namespace refract::simd
