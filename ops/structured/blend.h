// y and a guide's output mixed by a share that lies on the device: (1 - a) y + a g (Wei et al.,
// arXiv 2406.16450, section 3.3).
#pragma once
#include <ATen/core/Tensor.h>

#include "ops/common/op.h"

namespace refract {

// y and guide of one floating type and shape, share float [1] -> of y's type. The share is never
// rounded to the type of y: in bfloat16 every a > 1 - 2^-9 would be 1, and y would get no gradient.
// Each end is exact: a = 1 gives the guide, a = 0 gives y, bit for bit. The gradients are (1 - a)
// and a times the output's; the share has none.
struct BlendInputs {
  const at::Tensor &y, &guide, &share;
};
inline constexpr Op<"blend", at::Tensor(BlendInputs)> blend;

namespace composite {
at::Tensor blend(const BlendInputs& in);
}  // namespace composite

namespace blend_op {
// Raises unless the inputs fit together.
void check(const BlendInputs& in);
}  // namespace blend_op

}  // namespace refract
