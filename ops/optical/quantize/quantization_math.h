// The arithmetic of optical quantization, one code path for CPU and CUDA: the same range, level,
// value and noise bit for bit on both. Anderson et al., "Optical Transformers", arXiv 2302.10360.
//
// A *range* is a float tensor [2] on the device: (lo, hi), the running limits of one tensor role.
// (+inf, -inf) means "not set yet": the first training call sets it to what it saw, later ones move
// it, r <- s r + (1 - s) new. A call quantizes with the range as it was before the call, then
// moves it, so that one pass over the data does both; only where the range is not set is it first
// taken from the data. Outside training an unset range is taken from the data and stays unset.
//
// A *level* is q in 0 .. L - 1, kept in a float. u = (clamp(x, lo, hi) - lo) (L - 1) / (hi - lo +
// 1e-8); q = rint(u), noisy q = rint(u + xi); the value is lo + q (hi - lo) / (L - 1).
//
// Files that include this are compiled without contraction of a * b + c (ops/CMakeLists.txt does so
// for ops/optical/*_cpu.cpp), since only then are the two devices equal.
#pragma once
#include <cmath>
#include <limits>

#include "ops/common/philox.h"

namespace refract::optical {

// min and max give a NaN of a NaN; each is one instruction on either device.
#ifdef __CUDA_ARCH__
REFRACT_HOST_DEVICE float mul(float a, float b) { return __fmul_rn(a, b); }
REFRACT_HOST_DEVICE float add(float a, float b) { return __fadd_rn(a, b); }
REFRACT_HOST_DEVICE float min(float x, float limit) {
  float y;
  asm("min.NaN.f32 %0, %1, %2;" : "=f"(y) : "f"(x), "f"(limit));
  return y;
}
REFRACT_HOST_DEVICE float max(float x, float limit) {
  float y;
  asm("max.NaN.f32 %0, %1, %2;" : "=f"(y) : "f"(x), "f"(limit));
  return y;
}
#else
REFRACT_HOST_DEVICE float mul(float a, float b) { return a * b; }
REFRACT_HOST_DEVICE float add(float a, float b) { return a + b; }
REFRACT_HOST_DEVICE float min(float x, float limit) { return x > limit ? limit : x; }
REFRACT_HOST_DEVICE float max(float x, float limit) { return x < limit ? limit : x; }
#endif

// To the nearest integer, ties to even, for |x| < 2^22: vectorises on any machine.
constexpr float kRound = 12582912.0f;  // 1.5 * 2^23
REFRACT_HOST_DEVICE float round_even(float x) { return add(add(x, kRound), -kRound); }

// To the 11 significant bits of a normal fp16 number (Veltkamp's splitting).
REFRACT_HOST_DEVICE float round_to_half(float x) {
  const float t = mul(x, 8193.0f);
  return add(t, -add(t, -x));
}

// ---- Ranges

struct Range {
  float lo, hi;
};

REFRACT_HOST_DEVICE Range unset_range() {
  const float inf = std::numeric_limits<float>::infinity();
  return {inf, -inf};
}
REFRACT_HOST_DEVICE bool is_set(Range r) { return r.lo <= r.hi; }

// The smallest range over r and x; a NaN changes nothing.
REFRACT_HOST_DEVICE Range include(Range r, float x) {
#ifdef __CUDA_ARCH__
  return {fminf(r.lo, x), fmaxf(r.hi, x)};
#else
  return {x < r.lo ? x : r.lo, x > r.hi ? x : r.hi};
#endif
}
REFRACT_HOST_DEVICE Range merge(Range a, Range b) {
  return {b.lo < a.lo ? b.lo : a.lo, b.hi > a.hi ? b.hi : a.hi};
}

// The range after a training call that saw `seen`; smooth = q_smooth_factor. What is not finite, or
// a call that saw nothing, moves nothing.
REFRACT_HOST_DEVICE Range moved(Range r, Range seen, float smooth) {
  const float most = 3.402823466e+38f;
  if (!(seen.lo >= -most && seen.hi <= most && is_set(seen))) return r;
  if (!is_set(r)) return seen;
  const float rest = add(1.0f, -smooth);
  return {add(mul(smooth, r.lo), mul(rest, seen.lo)), add(mul(smooth, r.hi), mul(rest, seen.hi))};
}

// ---- Levels

// What quantizing to one range needs. Without a LUT floor both floors are 0.
struct Quantizer {
  float lo, hi;
  float top;          // L - 1
  float scale;        // levels per unit
  float step;         // units per level
  float floor_above;  // rho hi: a modulator can't go dark, so a value in (0, rho hi) is raised to
                      // it
  float floor_below;  // -rho |lo|, and one in (-rho |lo|, 0) lowered to this
};

REFRACT_HOST_DEVICE Quantizer quantizer(Range r, int levels, float lut_min) {
  const float top = static_cast<float>(levels - 1), width = add(r.hi, -r.lo);
  return {r.lo,
          r.hi,
          top,
          top / add(width, 1e-8f),
          width / top,
          mul(lut_min, r.hi),
          -mul(lut_min, r.lo < 0.0f ? -r.lo : r.lo)};
}

// u in [0, L - 1]; NaN of NaN.
REFRACT_HOST_DEVICE float position(const Quantizer& q, float x) {
  return mul(add(min(max(x, q.lo), q.hi), -q.lo), q.scale);
}
REFRACT_HOST_DEVICE float level(const Quantizer& q, float x) { return round_even(position(q, x)); }
// xi in [-1/2, 1/2). Rounding alone could lift u + xi to L - 1/2, whose nearest even is L.
REFRACT_HOST_DEVICE float noisy_level(const Quantizer& q, float x, float xi) {
  return min(round_even(add(position(q, x), xi)), q.top);
}

// The value of a level, without and with the LUT floor.
REFRACT_HOST_DEVICE float plain_value(const Quantizer& q, float level) {
  return add(mul(level, q.step), q.lo);
}
REFRACT_HOST_DEVICE float value(const Quantizer& q, float level) {
  float v = plain_value(q, level);
  v = v > 0.0f && v < q.floor_above ? q.floor_above : v;
  return v < 0.0f && v > q.floor_below ? q.floor_below : v;
}

// ---- Noise

// Element i of a call draws 16 bits: block (first + i) >> 3 of noise_block(philox_key(seed,
// stream), step, .), of its four words eight halves, low halves first. `first` is the index of the
// call's first element in the global batch: clock[1] * (elements per slice of dimension 0). xi = h
// / 2^16 - 1/2.
REFRACT_HOST_DEVICE float noise_of_half(uint32_t word, bool upper) {
#ifdef __CUDA_ARCH__
  const float f = __uint_as_float(__byte_perm(word, 0x4B000000u, upper ? 0x7632 : 0x7610));
  return __fmaf_rn(f, 1.0f / 65536.0f, -128.5f);  // f = 2^23 + h; exact
#else
  const auto h = static_cast<int32_t>(upper ? word >> 16 : word & 0xffffu);
  return add(mul(static_cast<float>(h), 1.0f / 65536.0f), -0.5f);
#endif
}

REFRACT_HOST_DEVICE float noise_at(PhiloxKey key, uint64_t step, uint64_t index) {
  return noise_of_half(noise_block(key, step, index >> 3).word[(index >> 1) & 3], (index & 1) != 0);
}

// xi of a whole Philox word, with 24 bits.
REFRACT_HOST_DEVICE float noise_of(uint32_t word) {
  const auto n = static_cast<float>(static_cast<int32_t>(word >> 8));
#ifdef __CUDA_ARCH__
  return __fmaf_rn(n, 1.0f / 16777216.0f, -0.5f);  // exact either way
#else
  return add(mul(n, 1.0f / 16777216.0f), -0.5f);
#endif
}

// The single number that mase-triton's kernels add to every element of every call: triton's
// rand(seed, 0) - 1/2, about +0.298 for seed 0.
inline float mase_shared_noise(uint64_t seed) {
  const PhiloxKey key{static_cast<uint32_t>(seed), static_cast<uint32_t>(seed >> 32)};
  const auto word = static_cast<int32_t>(philox(key, 0, 0).word[0]);
  const int32_t magnitude = word < 0 ? -word - 1 : word;
  return static_cast<float>(magnitude) * 4.6566127342e-10f - 0.5f;
}

// ---- Operands of a matrix product

// A quantized value as value = residual + step * code / unit, with code = unit * (q - zero), zero
// the level nearest to the value 0 and unit = 2^-k so that |code| <= 1. Codes of up to 2048 levels
// are exact in fp16, where a product's sum can't overflow. Only the two values of the LUT floor lie
// between levels; as codes they have 11 significant bits, an error of at most L / 4096 of a level:
// 1/16 for 256 levels, and about 1/800 where the range is symmetric. `residual` is at most half a
// level where the range holds 0.
struct Coder {
  float zero, residual, unit;
  float code_above, code_below;  // of the LUT floor
};

inline constexpr int kMaxExactLevels = 2048;

// The largest power of two with unit * top <= 1, for a whole top in [1, 2^16).
REFRACT_HOST_DEVICE float unit_of(float top) {
  float unit = 1.0f;
#ifdef __CUDACC__
#pragma unroll
#endif
  for (int bit = 0; bit < 16; ++bit) unit = mul(unit, mul(unit, top) > 1.0f ? 0.5f : 1.0f);
  return unit;
}

REFRACT_HOST_DEVICE Coder coder(const Quantizer& q) {
  Coder c{};
  if (q.step > 0.0f) c.zero = round_even(min(max(-q.lo / q.step, 0.0f), q.top));
  c.residual = plain_value(q, c.zero);
  c.unit = unit_of(q.top);
  if (q.step > 0.0f) {
    c.code_above = round_to_half(mul(add(q.floor_above, -c.residual) / q.step, c.unit));
    c.code_below = round_to_half(mul(add(q.floor_below, -c.residual) / q.step, c.unit));
  }
  return c;
}

// unit 1: the code of x's level without a LUT floor, a whole number. `from` = kRound + zero, so
// that subtracting it undoes the rounding's shift as well.
REFRACT_HOST_DEVICE float whole_code(const Quantizer& q, float from, float x) {
  return add(add(position(q, x), kRound), -from);
}

REFRACT_HOST_DEVICE float code(const Quantizer& q, const Coder& c, float level) {
  const float v = plain_value(q, level);
  float code = mul(add(level, -c.zero), c.unit);
  code = v > 0.0f && v < q.floor_above ? c.code_above : code;
  return v < 0.0f && v > q.floor_below ? c.code_below : code;
}

// sum_k x_k w_k = gain sum_k(code code) + row_gain sum_k(code of x) + column_gain sum_k(code of w)
// + constant, over `inner` values of each operand.
struct Mix {
  float gain, row_gain, column_gain, constant;
};

REFRACT_HOST_DEVICE Mix mix(const Quantizer& x, const Quantizer& w, float inner) {
  const Coder cx = coder(x), cw = coder(w);
  const float ux = x.step / cx.unit, uw = w.step / cw.unit;
  return {mul(ux, uw), mul(ux, cw.residual), mul(cx.residual, uw),
          mul(inner, mul(cx.residual, cw.residual))};
}

}  // namespace refract::optical
