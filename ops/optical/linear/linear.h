// An optical linear layer, or several that share their input: y = Q_noisy(Q(x) . Q_lut(W)^T) + b.
//
// The gradient is straight-through with the unquantized operands: exactly the dense product's.
#pragma once
#include <ATen/core/Tensor.h>

#include "ops/common/op.h"
#include "ops/optical/matmul/product.h"

namespace refract {

// x [..., K], weight [N, K], bias [N] -> [..., N] in x's type. M layers lie side by side in weight:
// splits[m] of its N rows, each with its own ranges. weight_encoded: the list() of
// optical_encode(weight) of the same weight, made earlier; empty: it is made now. With
// settings.train the ranges move: x_range, out_ranges and, where `move_weights`, w_ranges.
struct OpticalLinearInputs {
  const at::Tensor &x, &weight;
  const MaybeTensor& bias;
  const at::Tensor& x_range;
  at::TensorList w_ranges, out_ranges;
  at::IntArrayRef splits;
  at::TensorList weight_encoded;
  bool move_weights;
  const OpticalSettings& settings;
};
inline constexpr Op<"optical_linear", at::Tensor(OpticalLinearInputs)> optical_linear;

// Below autograd; `encoded` is given.
struct OpticalLinearForwardInputs {
  const at::Tensor &x, &weight;
  at::TensorList encoded;
  const MaybeTensor& bias;
  const at::Tensor& x_range;
  at::TensorList w_ranges, out_ranges;
  at::IntArrayRef splits;
  bool move_weights;
  const OpticalSettings& settings;
};
inline constexpr Op<"optical_linear_forward", at::Tensor(OpticalLinearForwardInputs)>
    optical_linear_forward;

namespace composite {
at::Tensor optical_linear_forward(const OpticalLinearForwardInputs& in);
}  // namespace composite

namespace optical_linear_op {
// Raises unless the inputs fit together.
void check(const OpticalLinearForwardInputs& in);
// What `encoded` holds; raises unless it has an operand's four tensors.
OpticalOperand operand_of(at::TensorList encoded);
}  // namespace optical_linear_op

}  // namespace refract
