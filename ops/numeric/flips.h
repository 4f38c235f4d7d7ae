// From bit_flip's inputs to what its kernels compute with.
#pragma once
#include "ops/numeric/bit_flip.h"
#include "ops/numeric/flip_math.h"
#include "ops/numeric/rare_flips.h"

namespace refract::numeric {

// Whose bits are flipped: the type's own, float32's for float64.
inline at::ScalarType flipped_type(at::ScalarType type) {
  return type == at::kDouble ? at::kFloat : type;
}

inline FlipType flip_type(at::ScalarType type) {
  return type == at::kBFloat16 ? kFlipBfloat16 : type == at::kHalf ? kFlipHalf : kFlipFloat;
}

inline Flips flips_of(const BitFlipInputs& in) {
  return {static_cast<int>(in.exponent_flips), static_cast<int>(in.fraction_flips),
          static_cast<float>(in.zero_out.value_or(0)), in.zero_out.has_value()};
}

// In whole numbers of 2^-64, so that every machine has the same ones.
inline Darts darts_of(int flips) {
  __extension__ using Wide = unsigned __int128;
  Darts d{};
  uint64_t none = uint64_t{0} - (uint64_t{1} << (64 - flips));  // 1 - p of a bit
  for (int square = 1; square < kGroupBits; square *= 2)
    none = static_cast<uint64_t>(Wide{none} * none >> 64);
  uint64_t mean = 0;  // -128 ln(1 - p) = 128 (p + p^2 / 2 + ...)
  for (int power = 1; power * flips <= 64 + 7; ++power)
    mean += (uint64_t{1} << (64 + 7 - power * flips)) / static_cast<uint64_t>(power);
  uint64_t probability = none, sum = 0;
  while (probability > 0 && d.count < kMostDarts) {
    sum += probability;
    d.at_most[d.count++] = sum;
    probability =
        static_cast<uint64_t>(Wide{probability} * mean >> 64) / static_cast<uint64_t>(d.count);
  }
  return d;
}

inline RareFlips rare_flips_of(const FlipType& type, const Flips& f) {
  const auto in_word = [&](uint32_t bits) { return type.bits == 32 ? bits : bits | bits << 16; };
  RareFlips all{};
  const auto add = [&](int flips, uint32_t bits) {
    if (flips == 0) return;
    all.darts[all.processes] = darts_of(flips);
    all.bits[all.processes++] = in_word(bits);
  };
  if (f.exponent == f.fraction) {
    add(f.exponent, type.sign_and_exponent | type.fraction);
  } else {
    add(f.exponent, type.sign_and_exponent);
    add(f.fraction, type.fraction);
  }
  return all;
}

}  // namespace refract::numeric
