// Random flips of the bits of floating-point numbers, as an unreliable memory or wire has them.
#pragma once
#include <ATen/core/Tensor.h>

#include "ops/common/op.h"

namespace refract {

// x of any shape. Every bit of sign and exponent flips with probability 2^-exponent_flips, every
// bit of the fraction with 2^-fraction_flips (0: never; at most 24), each by itself. Then, with
// `zero_out` t, an element is kept where |x'| < t and is 0 otherwise, NaN too. Bits are those of
// x's own type; an element of float64 flips as its float32 does, and stays as it is where no bit of
// that flips.
// Element i is number clock[1] + i of its stream, with key philox_key(seed, stream) and step
// clock[0]; clock as of refract::dropout. Where a rate is above 2^-8, a mask bit is the AND of that
// many random bits, and element e uses blocks e n .. of noise_block(), n each. Otherwise the 128
// bits of 8 elements, or of 4 of float32, are drawn together (ops/numeric/rare_flips.h).
// The gradient is that of the identity where an element is kept, and 0 where it is zeroed.
struct BitFlipInputs {
  const at::Tensor& x;
  int64_t exponent_flips, fraction_flips;
  std::optional<double> zero_out;
  int64_t seed, stream;
  const at::Tensor& clock;
};
inline constexpr Op<"bit_flip", at::Tensor(BitFlipInputs)> bit_flip;

// grad where bit_flip(x, ...) keeps its element, else 0. The bits are drawn again.
struct BitFlipBackwardInputs {
  const at::Tensor &grad, &x;
  int64_t exponent_flips, fraction_flips;
  std::optional<double> zero_out;
  int64_t seed, stream;
  const at::Tensor& clock;
};
inline constexpr Op<"bit_flip_backward", at::Tensor(BitFlipBackwardInputs)> bit_flip_backward;

namespace composite {
at::Tensor bit_flip(const BitFlipInputs& in);
at::Tensor bit_flip_backward(const BitFlipBackwardInputs& in);
}  // namespace composite

namespace bit_flip_op {
// Raise unless the inputs fit together.
void check(const BitFlipInputs& in);
void check_backward(const BitFlipBackwardInputs& in);
// The forward call's inputs.
inline BitFlipInputs forward_of(const BitFlipBackwardInputs& in) {
  return {in.x, in.exponent_flips, in.fraction_flips, in.zero_out, in.seed, in.stream, in.clock};
}
}  // namespace bit_flip_op

}  // namespace refract
