// The output layer and its loss where one row stands for every place at which its prefix occurs:
// each row has several targets, each of them so many times.
#pragma once
#include "ops/many/batched_cross_entropy.h"

namespace refract {

// x [A, N, C] and weight [A, Vp, C] of any one floating type, num_classes V <= Vp, as
// batched_linear_cross_entropy() has them. Pair p says that row rows[p] has the target targets[p]
// counts[p] times: rows, targets, counts [P], int64, rows ascending. Returns per model the sum over
// pairs of counts[p] * -log softmax(x[rows[p]] W^T)[targets[p]], and of counts[p] where the target
// is the arg max (the lowest index among equals). Not differentiable.
//
// The CPU kernel raises on rows and targets out of range, and on rows that do not ascend.
BatchedCrossEntropy prefix_cross_entropy(const at::Tensor& x, const at::Tensor& weight,
                                         const at::Tensor& rows, const at::Tensor& targets,
                                         const at::Tensor& counts, int64_t num_classes);

namespace composite {
std::tuple<at::Tensor, at::Tensor> prefix_cross_entropy(
    const at::Tensor& x, const at::Tensor& weight, const at::Tensor& rows,
    const at::Tensor& targets, const at::Tensor& counts, int64_t num_classes);
}  // namespace composite

namespace prefix_cross_entropy_op {
// Raises unless the arguments fit together.
void check(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& rows,
           const at::Tensor& targets, const at::Tensor& counts, int64_t num_classes);
}  // namespace prefix_cross_entropy_op

}  // namespace refract
