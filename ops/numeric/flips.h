// From bit_flip's inputs to what its kernels compute with.
#pragma once
#include "ops/numeric/bit_flip.h"
#include "ops/numeric/flip_math.h"

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

}  // namespace refract::numeric
