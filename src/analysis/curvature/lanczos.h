// Eigenvalues of a symmetric operator that only multiplies vectors.
#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <vector>

#include "analysis/curvature/products.h"

namespace refract {

struct LanczosOptions {
  int64_t top = 5;              // eigenvalues that are wanted, the largest ones
  int64_t basis = 0;            // vectors held at once; 0: 2 top + 6
  int64_t most_products = 100;  // with the operator
  double tolerance = 1e-3;      // residual over the largest |eigenvalue|
};

struct Eigenvalue {
  double value = 0;
  double residual = 0;  // |A x - value x| of a unit x; the eigenvalue is no farther away
};

struct Spectrum {
  std::vector<Eigenvalue> largest;  // descending; fewer where the operator has fewer different ones
  Eigenvalue smallest;              // of those found, as it came beside the others
  int64_t products = 0;
  bool converged = false;  // all of `largest` within the tolerance
  // |T - T^T| / |T| (Frobenius) of the operator in the last basis: 0 where it is symmetric.
  double asymmetry = 0;
  at::Tensor direction;  // unit eigenvector of the largest
};

// Lanczos's method with full reorthogonalization, restarted from the Ritz vectors that are kept (Wu
// and Simon, "Thick-restart Lanczos method", 2000) so that memory stays `basis` vectors, which lie
// where `start` does and have its type. `done` is told the number of products.
Spectrum largest_eigenvalues(const LinearOperator& product, const at::Tensor& start,
                             const LanczosOptions& options,
                             const std::function<void(int64_t)>& done = {});

// Points and weights (sum 1) whose weighted sums are x^T f(A) x / x^T x for polynomials f up to
// degree 2 steps - 1: the spectral density as `start` sees it (Ghorbani et al., arXiv 1901.10159).
struct Quadrature {
  std::vector<double> nodes, weights;
};
Quadrature lanczos_quadrature(const LinearOperator& product, const at::Tensor& start,
                              int64_t steps);

}  // namespace refract
