// The output layer and its loss where one row stands for every place at which its prefix occurs:
// each row has several targets, each of them so many times.
#pragma once
#include <ATen/core/Tensor.h>

#include "ops/common/op.h"
#include "ops/many/batched_cross_entropy.h"

namespace refract {

// x [A, N, C] and weight [A, Vp, C] of any one floating type, num_classes V <= Vp, as
// batched_linear_cross_entropy() has them. Pair p says that row rows[p] has the target targets[p]
// counts[p] times: rows, targets, counts [P], int64, rows ascending. Returns per model the sum over
// pairs of counts[p] * -log softmax(x[rows[p]] W^T)[targets[p]], and of counts[p] where the target
// is the arg max (the lowest index among equals). Not differentiable.
//
// The CPU kernel raises on rows and targets out of range, and on rows that do not ascend.
struct PrefixCrossEntropyInputs {
  const at::Tensor &x, &weight, &rows, &targets, &counts;
  int64_t num_classes;
};
inline constexpr Op<"prefix_cross_entropy", BatchedCrossEntropy(PrefixCrossEntropyInputs)>
    prefix_cross_entropy;

namespace composite {
BatchedCrossEntropy prefix_cross_entropy(const PrefixCrossEntropyInputs& in);
}  // namespace composite

namespace prefix_cross_entropy_op {
// Raises unless the inputs fit together.
void check(const PrefixCrossEntropyInputs& in);
}  // namespace prefix_cross_entropy_op

}  // namespace refract
