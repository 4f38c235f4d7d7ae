// Rotary position embedding (Su et al., "RoFormer", 2021) of the query and key heads inside the
// joint output of the q, k, v projections, in Hugging Face's rotate_half convention: element i of a
// head turns with element i + D/2.
#pragma once
#include <ATen/core/Tensor.h>

#include "ops/common/op.h"

namespace refract {

// x [B, T, heads * head_dim] of any floating type; cos, sin [T_max, head_dim / 2], fp32 (float64
// with float64 x); row t uses position position_offset + t, which must be below T_max. The first
// num_rotated_heads heads are rotated in fp32, the others copied. inverse turns back, which is also
// the gradient. cos and sin get no gradient.
struct RopeInputs {
  const at::Tensor &x, &cos, &sin;
  int64_t position_offset, num_rotated_heads, head_dim;
  bool inverse = false;
};
inline constexpr Op<"rope", at::Tensor(RopeInputs)> rope;

namespace composite {
at::Tensor rope(const RopeInputs& in);
}  // namespace composite

namespace rope_op {
void check(const RopeInputs& in);
}  // namespace rope_op

}  // namespace refract
