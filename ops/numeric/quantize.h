// Numbers in other formats: minifloats, the OCP microscaling (MX) formats, NVFP4 and integers, as
// values of x's own type. ops/numeric/format_math.h is the definition.
#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>

#include "ops/common/op.h"

namespace refract {

struct NumberFormat {
  int64_t exponent_bits = 4;  // 0 .. 7; 0: fixed point
  int64_t mantissa_bits = 3;  // 0 .. 14
  double max = 448;           // the largest magnitude, a number of the format
  int64_t rounding =
      0;  // numeric::Rounding: 0 nearest even, 1 away from zero, 2 toward zero, 3 stochastic
  int64_t scaling = 0;  // numeric::Scaling: 0 none, 1 power of two, 2 NVFP4, 3 largest, 4 limits
  int64_t block = 0;    // elements of a line that share a scale; 0: a whole line, -1: the tensor
};
template <>
inline constexpr bool kListedByField<NumberFormat> = true;

// x [..., K] -> the same with every element rounded to the format. A line is a row of the last
// dimension or, with `columns`, of the one before it; blocks are cut from a line's start, and the
// last may be shorter. The products of a bfloat16 x with a scale that is not a power of two are
// rounded to bfloat16.
// Stochastic rounding: element i of x, its lines one behind the other, is rounded up where
// philox_uniform(philox_word(philox_key(seed, stream), clock[0], clock[1] + i)) is below what is
// cut off; clock as of refract::dropout.
struct NumberQuantizeInputs {
  const at::Tensor& x;
  bool columns;
  const NumberFormat& format;
  int64_t seed = 0, stream = 0;
  const MaybeTensor& clock = kNoTensor;
};
inline constexpr Op<"number_quantize", at::Tensor(NumberQuantizeInputs)> number_quantize;

namespace composite {
at::Tensor number_quantize(const NumberQuantizeInputs& in);
}  // namespace composite

namespace number_quantize_op {
// Raises unless the inputs fit together.
void check(const NumberQuantizeInputs& in);
// The limits of all of x, float [2], where the format asks for them; else undefined.
at::Tensor tensor_limits(const NumberQuantizeInputs& in);
}  // namespace number_quantize_op

}  // namespace refract
