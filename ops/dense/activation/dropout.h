// Dropout whose mask is a function of (seed, stream, step, element): the same on a CPU and a GPU,
// and drawn again, not stored, for the backward pass.
#pragma once
#include <ATen/core/Tensor.h>

#include "ops/common/op.h"

namespace refract {

// x of any shape; p in [0, 1). Element i (row-major) is kept and scaled by 1 / (1 - p) where
// philox_uniform(philox_word(philox_key(seed, stream), clock[0], clock[1] + i)) >= p, else zero.
// clock: int64 [2] on x's device, (step, index of x's first element in the global batch); it must
// hold the same numbers when the backward pass runs.
struct DropoutInputs {
  const at::Tensor& x;
  double p;
  int64_t seed, stream;
  const at::Tensor& clock;
};
inline constexpr Op<"dropout", at::Tensor(DropoutInputs)> dropout;

namespace composite {
at::Tensor dropout(const DropoutInputs& in);
}  // namespace composite

namespace dropout_op {
void check(const DropoutInputs& in);
}  // namespace dropout_op

}  // namespace refract
