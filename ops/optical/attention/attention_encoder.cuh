// From a value of q, k or v to its code.
#pragma once
#include "ops/optical/attention/attention_tile.cuh"

namespace refract::attention {

// optical::code(optical::level(x)) in fewer instructions: what the floor raises and lowers is found
// among the codes themselves. NaN of NaN.
struct Encoder {
  float lo, hi, scale, zero, unit;
  float zero_code;  // of the value 0, which lies between two levels
  float above, below;
  __device__ __forceinline__ Encoder(const Constants& constants, Role role) {
    const optical::Quantizer& q = constants.quantizer[role];
    const optical::Coder& c = constants.coder[role];
    lo = q.lo;
    hi = q.hi;
    scale = q.scale;
    zero = c.zero;
    unit = c.unit;
    zero_code = constants.unit[role] > 0.0f ? -c.residual / constants.unit[role] : 0.0f;
    above = q.floor_above > 0.0f ? c.code_above : zero_code;
    below = q.floor_below < 0.0f ? c.code_below : zero_code;
  }
  __device__ __forceinline__ float operator()(float x) const {
    const float position = (optical::min(optical::max(x, lo), hi) - lo) * scale;
    float code = (optical::round_even(position) - zero) * unit;
    code = code > zero_code && code < above ? above : code;
    return code < zero_code && code > below ? below : code;
  }
};

}  // namespace refract::attention
