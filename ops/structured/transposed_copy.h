// A matrix stored column by column instead of row by row.
#pragma once
#include <ATen/core/Tensor.h>

#include "ops/common/op.h"

namespace refract {

// x [rows, columns] of any strides -> contiguous [columns, rows], with a bias [rows] of x's type
// added to each row of x on the way.
struct TransposedCopyInputs {
  const at::Tensor& x;
  const MaybeTensor& row_bias = kNoTensor;
};
inline constexpr Op<"transposed_copy", at::Tensor(TransposedCopyInputs)> transposed_copy;

namespace composite {
at::Tensor transposed_copy(const TransposedCopyInputs& in);
}  // namespace composite

namespace transposed_copy_op {
// Raises unless the inputs fit together.
void check(const TransposedCopyInputs& in);
}  // namespace transposed_copy_op

}  // namespace refract
