#include "analysis/matching/orthogonal.h"

#include <ATen/ops/linalg_matrix_exp.h>
#include <ATen/ops/linalg_svd.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/zeros_like.h>

#include <cstdint>

namespace refract {
namespace {

// Onto the vectors whose numbers sum to 0: what is left of x [n, n] between two of them.
at::Tensor without_mean(const at::Tensor& x) {
  const at::Tensor rows = x.sub(x.mean(1, /*keepdim=*/true));
  return rows.sub(rows.mean(0, /*keepdim=*/true));
}

}  // namespace

at::Tensor procrustes(const at::Tensor& score) {
  const auto [u, s, vh] = at::linalg_svd(score, /*full_matrices=*/false);
  return at::matmul(u, vh);
}

at::Tensor procrustes_keeping_mean(const at::Tensor& score) {
  // The mean's own direction gets a value of its own, larger than all others.
  const at::Tensor rest = without_mean(score);
  const double own = 1 + 2 * rest.norm().item<double>();
  const auto n = static_cast<double>(score.size(0));
  return procrustes(rest.add(own / n));
}

std::optional<Permutation> as_permutation(const at::Tensor& q) {
  constexpr double kRounding = 1e-4;
  const at::Tensor largest = std::get<1>(q.max(1)).contiguous();
  const int64_t* data = largest.const_data_ptr<int64_t>();
  Permutation p(data, data + largest.numel());
  const at::Tensor exact = at::zeros_like(q).scatter_(1, largest.unsqueeze(1), 1.0);
  if (q.sub(exact).abs().max().item<double>() > kRounding) return std::nullopt;
  return p;
}

at::Tensor rotation_of(const at::Tensor& x, bool keeps_mean) {
  const at::Tensor skew = x.sub(x.t()).mul(0.5);
  return at::linalg_matrix_exp(keeps_mean ? without_mean(skew) : skew);
}

}  // namespace refract
