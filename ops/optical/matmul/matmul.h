// The optical product of two activations: y = Q_noisy(Q(a) . Q_lut(b)).
//
// The gradient is straight-through with the unquantized operands: exactly the dense product's.
#pragma once
#include <ATen/core/Tensor.h>

#include "ops/common/op.h"
#include "ops/optical/matmul/product.h"

namespace refract {

// a [..., T, K] times b [..., K, S] with equal leading dimensions -> [..., T, S]. The LUT floor is
// b's. One noise stream.
struct OpticalMatmulInputs {
  const at::Tensor &a, &b, &a_range, &b_range, &out_range;
  const OpticalSettings& settings;
};
inline constexpr Op<"optical_matmul", at::Tensor(OpticalMatmulInputs)> optical_matmul;
// Below autograd.
inline constexpr Op<"optical_matmul_forward", at::Tensor(OpticalMatmulInputs)>
    optical_matmul_forward;

namespace composite {
at::Tensor optical_matmul(const OpticalMatmulInputs& in);
}  // namespace composite

namespace optical_matmul_op {
// Raises unless the inputs fit together.
void check(const OpticalMatmulInputs& in);
}  // namespace optical_matmul_op

}  // namespace refract
