#include "transforms/structured/factorization.h"

#include <ATen/ops/linalg_eigh.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/where.h>
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <limits>

namespace refract {
namespace {

at::Tensor as_double(const at::Tensor& t) { return t.detach().to(at::kCPU, at::kDouble); }

// Eigenvalues (ascending) and eigenvectors of W W^T. An eigendecomposition of the smaller side
// takes a fraction of a full SVD's time; squaring costs digits of the small singular values only,
// and what is computed from the eigenvectors below does not use those.
std::pair<at::Tensor, at::Tensor> left_vectors(const at::Tensor& w) {
  const auto [values, vectors] = at::linalg_eigh(at::matmul(w, w.transpose(-2, -1)), "L");
  return {values, vectors};
}

}  // namespace

std::pair<at::Tensor, at::Tensor> truncated_svd(const at::Tensor& weight, int64_t rank) {
  const at::Tensor w = as_double(weight);
  if (w.size(-2) > w.size(-1)) {
    const auto [u, v] = truncated_svd(w.transpose(-2, -1), rank);
    return {v.transpose(-2, -1).contiguous(), u.transpose(-2, -1).contiguous()};
  }
  const int64_t m = w.size(-2), kept = std::min(rank, m);
  // U V = Q Q^T W is the projection on the leading singular directions.
  const at::Tensor q = left_vectors(w).second.narrow(-1, m - kept, kept).flip(-1);
  const at::Tensor projected = at::matmul(q.transpose(-2, -1), w);  // rows of length s
  const at::Tensor root = projected.norm(2, at::IntArrayRef{-1}, true).sqrt();
  const at::Tensor divisor = at::where(root.gt(0), root, 1.0);
  const at::Tensor u = q.mul(root.transpose(-2, -1)), v = projected.div(divisor);
  if (kept == rank) return {u, v};
  auto u_shape = u.sizes().vec(), v_shape = v.sizes().vec();
  u_shape.back() = v_shape[v_shape.size() - 2] = rank;
  at::Tensor wide_u = at::zeros(u_shape, u.options()), wide_v = at::zeros(v_shape, v.options());
  wide_u.narrow(-1, 0, kept).copy_(u);
  wide_v.narrow(-2, 0, kept).copy_(v);
  return {wide_u, wide_v};
}

at::Tensor orthonormal(const at::Tensor& weight) {
  const at::Tensor w = as_double(weight);
  if (w.size(-2) > w.size(-1)) {
    return orthonormal(w.transpose(-2, -1)).transpose(-2, -1).contiguous();
  }
  // (W W^T)^(-1/2) W, the polar factor.
  const auto [values, q] = left_vectors(w);
  const at::Tensor root = values.clamp_min(std::numeric_limits<double>::min()).rsqrt();
  const at::Tensor inverse = at::matmul(q.mul(root.unsqueeze(-2)), q.transpose(-2, -1));
  return at::matmul(inverse, w);
}

double relative_error(const at::Tensor& approximation, const at::Tensor& weight) {
  const at::Tensor w = as_double(weight);
  const double scale = w.norm().item<double>();
  const double difference = as_double(approximation).sub(w).norm().item<double>();
  return difference == 0 ? 0 : difference / scale;
}

}  // namespace refract
