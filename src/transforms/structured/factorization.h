// The matrix factorisations behind structured layers, in float64 on the CPU, so that every device
// starts from the same bits.
#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <utility>

namespace refract {

// The best approximation of W [..., m, n] by U V with U [..., m, rank], V [..., rank, n] in the
// Frobenius norm, that is W's truncated singular value decomposition, the roots of the singular
// values on both sides. Where rank exceeds min(m, n) the rest is zero.
std::pair<at::Tensor, at::Tensor> truncated_svd(const at::Tensor& weight, int64_t rank);

// U V^T of the singular value decomposition of W [..., m, n]: the nearest matrix with orthonormal
// rows or columns, whichever are fewer.
at::Tensor orthonormal(const at::Tensor& weight);

// |approximation - weight| / |weight| in the Frobenius norm; 0 for two zeros.
double relative_error(const at::Tensor& approximation, const at::Tensor& weight);

}  // namespace refract
