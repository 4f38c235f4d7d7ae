// From an op's NumberFormat to what its kernels compute with.
#pragma once
#include <type_traits>

#include "ops/numeric/format_math.h"
#include "ops/numeric/quantize.h"

namespace refract::numeric {

inline Element element_of(const NumberFormat& f) {
  Element e{};
  e.mantissa_bits = static_cast<int>(f.mantissa_bits);
  // Bias 2^(e - 1) - 1, so the least exponent is 2 - 2^(e - 1).
  e.least_exponent = f.exponent_bits == 0 ? 0 : 2 - (1 << (f.exponent_bits - 1));
  e.max = static_cast<float>(f.max);
  e.greatest_exponent = exponent_of(e.max);
  e.rounding = static_cast<Rounding>(f.rounding);
  e.scaling = static_cast<Scaling>(f.scaling);
  return e;
}

}  // namespace refract::numeric
