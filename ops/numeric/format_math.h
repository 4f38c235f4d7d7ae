// The arithmetic of number formats, one code path for CPU and CUDA: the same value bit for bit on
// both.
//
// An *element format* has e exponent bits and m mantissa bits: its magnitudes are k 2^(E - m), with
// E >= least_exponent and k < 2^(m + 1), up to `max`; below 2^least_exponent they are subnormal.
// Without exponent bits E is 0 and the format is a fixed point one. Larger magnitudes saturate; a
// NaN stays one.
//
// Elements of a *group* share a scale (OCP Microscaling Formats 1.0; NVFP4; plain integers). A
// group is known by the smallest and the largest of its elements and 0.
#pragma once
#include <cstdint>

#include "ops/common/philox.h"

namespace refract::numeric {

enum class Rounding { kEven, kAway, kZero, kStochastic };
enum class Scaling {
  kNone,     // 1
  kPower,    // E8M0: 2^(floor(log2 max|x|) - emax), within 2^-127 .. 2^127
  kBlocks,   // NVFP4: an E4M3 number per group, times a float of the whole tensor
  kLargest,  // max|x| / max: symmetric integers
  kLimits,   // (hi - lo) / (2^(m + 2) - 1) with a zero point: asymmetric integers
};

struct Element {
  int mantissa_bits;
  int least_exponent;     // of normal numbers
  int greatest_exponent;  // emax, of the largest number
  float max;
  Rounding rounding;
  Scaling scaling;
};

#ifdef __CUDA_ARCH__
REFRACT_HOST_DEVICE uint32_t bits_of(float x) { return __float_as_uint(x); }
REFRACT_HOST_DEVICE float float_of(uint32_t bits) { return __uint_as_float(bits); }
REFRACT_HOST_DEVICE float divided(float a, float b) { return __fdiv_rn(a, b); }
REFRACT_HOST_DEVICE float times(float a, float b) { return __fmul_rn(a, b); }
REFRACT_HOST_DEVICE float plus(float a, float b) { return __fadd_rn(a, b); }
#else
REFRACT_HOST_DEVICE uint32_t bits_of(float x) { return __builtin_bit_cast(uint32_t, x); }
REFRACT_HOST_DEVICE float float_of(uint32_t bits) { return __builtin_bit_cast(float, bits); }
REFRACT_HOST_DEVICE float divided(float a, float b) { return a / b; }
REFRACT_HOST_DEVICE float times(float a, float b) { return a * b; }
REFRACT_HOST_DEVICE float plus(float a, float b) { return a + b; }
#endif

// 2^power for a power in -126 .. 127.
REFRACT_HOST_DEVICE float power_of_two(int power) {
  return float_of(static_cast<uint32_t>(power + 127) << 23);
}
// floor(log2 x) of a normal x > 0; -127 of smaller ones.
REFRACT_HOST_DEVICE int exponent_of(float x) { return static_cast<int>(bits_of(x) >> 23) - 127; }

// x 2^power for a power in -127 .. 127, rounded once.
REFRACT_HOST_DEVICE float shifted(float x, int power) {
  const int half = power / 2;
  return times(times(x, power_of_two(half)), power_of_two(power - half));
}

// A whole number for 0 <= a < 2^22. u in [0, 1) decides where rounding is stochastic.
template <Rounding rounding>
REFRACT_HOST_DEVICE float whole(float a, float u) {
  if (rounding == Rounding::kEven) return plus(plus(a, 12582912.0f), -12582912.0f);  // 1.5 * 2^23
  const auto below = static_cast<float>(static_cast<int32_t>(a));
  if (rounding == Rounding::kZero) return below;
  const float rest = plus(a, -below);
  if (rounding == Rounding::kAway) return rest >= 0.5f ? below + 1.0f : below;
  return u < rest ? below + 1.0f : below;
}

// x in the element format.
template <Rounding rounding>
REFRACT_HOST_DEVICE float element(float x, const Element& f, float u) {
  const uint32_t bits = bits_of(x), sign = bits & 0x80000000u;
  const float magnitude = float_of(bits & 0x7fffffffu);
  const float a = magnitude > f.max ? f.max : magnitude;
  const int own = exponent_of(a);
  const int shift = f.mantissa_bits - (own > f.least_exponent ? own : f.least_exponent);
  const float rounded =
      times(whole<rounding>(times(a, power_of_two(shift)), u), power_of_two(-shift));
  // The conversion of a NaN to an integer is anything.
  return magnitude == magnitude ? float_of(bits_of(rounded) | sign) : x;
}

// ---- Groups

struct Limits {
  float lo, hi;  // lo <= 0 <= hi
};
REFRACT_HOST_DEVICE Limits include(Limits l, float x) {
  return {x < l.lo ? x : l.lo, x > l.hi ? x : l.hi};
}
REFRACT_HOST_DEVICE Limits merge(Limits a, Limits b) {
  return {b.lo < a.lo ? b.lo : a.lo, b.hi > a.hi ? b.hi : a.hi};
}
REFRACT_HOST_DEVICE float largest(Limits l) { return -l.lo > l.hi ? -l.lo : l.hi; }

// How a group's elements are scaled.
struct Group {
  int power;    // kPower
  float scale;  // otherwise; 0: every element of the group is 0
  float zero;   // kLimits: the integer that stands for 0
};

// E4M3's greatest number times E2M1's: what NVFP4's scale of a tensor leaves to its groups.
constexpr float kBlocksMost = 448.0f * 6.0f;
REFRACT_HOST_DEVICE Element block_scale() {
  return {3, -6, 8, 448.0f, Rounding::kEven, Scaling::kNone};
}

REFRACT_HOST_DEVICE Group group_of(const Element& f, Limits of_group, Limits of_tensor) {
  Group g{0, 1.0f, 0.0f};
  if (f.scaling == Scaling::kPower) {
    // An infinity counts as the largest power of two, so that what it saturates to is a number.
    const int exponent = exponent_of(largest(of_group));
    const int power = (exponent > 127 ? 127 : exponent) - f.greatest_exponent;
    g.power = power < -127 ? -127 : power;
  } else if (f.scaling == Scaling::kBlocks) {
    const float whole_scale = divided(largest(of_tensor), kBlocksMost);
    const float wanted =
        whole_scale > 0.0f ? divided(divided(largest(of_group), f.max), whole_scale) : 0.0f;
    g.scale = times(element<Rounding::kEven>(wanted, block_scale(), 0.0f), whole_scale);
  } else if (f.scaling == Scaling::kLargest) {
    g.scale = divided(largest(of_group), f.max);
  } else if (f.scaling == Scaling::kLimits) {
    const float most = power_of_two(f.mantissa_bits + 2) - 1.0f;
    g.scale = divided(plus(of_group.hi, -of_group.lo), most);
    if (g.scale > 0.0f) g.zero = whole<Rounding::kEven>(divided(-of_group.lo, g.scale), 0.0f);
  }
  return g;
}

// x as its group represents it.
template <Rounding rounding, Scaling scaling>
REFRACT_HOST_DEVICE float in_group(float x, const Element& f, const Group& g, float u) {
  if (scaling == Scaling::kNone) return element<rounding>(x, f, u);
  if (scaling == Scaling::kPower)
    return shifted(element<rounding>(shifted(x, -g.power), f, u), g.power);
  if (!(g.scale > 0.0f)) return x == x ? 0.0f : x;
  const float v = divided(x, g.scale);
  if (scaling != Scaling::kLimits) return times(element<rounding>(v, f, u), g.scale);
  const float most = power_of_two(f.mantissa_bits + 2) - 1.0f;
  const float place = plus(v, g.zero);
  const float inside = place < 0.0f ? 0.0f : place > most ? most : place;
  return x == x ? times(plus(whole<rounding>(inside, u), -g.zero), g.scale) : x;
}

}  // namespace refract::numeric
