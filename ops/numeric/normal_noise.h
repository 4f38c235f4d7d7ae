// Independent standard normal numbers, as analog devices and converters add them.
#pragma once
#include <ATen/core/Tensor.h>

#include "ops/common/op.h"

namespace refract {

// float, of the sizes and on the device of `like`, contiguous, without a gradient. Element i is
// number clock[1] + i of a stream, clock as of refract::dropout; numbers 2 j and 2 j + 1 are
// r cos(a) and r sin(a) (Box and Muller 1958) with r = sqrt(-2 ln(1 - u)) and a = 2 pi v, where u
// and v are the uniform numbers of words 2 j and 2 j + 1 of noise_block(philox_key(seed, stream),
// clock[0], .), four words to a block. Forms of the op agree up to rounding.
struct NormalNoiseInputs {
  const at::Tensor& like;
  int64_t seed, stream;
  const at::Tensor& clock;
};
inline constexpr Op<"normal_noise", at::Tensor(NormalNoiseInputs)> normal_noise;

namespace composite {
at::Tensor normal_noise(const NormalNoiseInputs& in);
}  // namespace composite

namespace normal_noise_op {
// Raises unless the inputs fit together.
void check(const NormalNoiseInputs& in);
}  // namespace normal_noise_op

}  // namespace refract
