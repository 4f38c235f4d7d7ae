// Orthogonal matrices: the best for a score, and all of them by free numbers.
#pragma once
#include <ATen/core/Tensor.h>

#include <optional>

#include "analysis/matching/symmetry.h"

namespace refract {

// The orthogonal Q with the largest <M, Q> for each score M [..., n, n] (Schoenemann, "A
// generalized solution of the orthogonal Procrustes problem", 1966).
at::Tensor procrustes(const at::Tensor& score);
// The same for M [n, n] among those Q that leave the vector (1, ..., 1) where it is, as maps of a
// stream under LayerNorm must.
at::Tensor procrustes_keeping_mean(const at::Tensor& score);

// The permutation that Q is to within 1e-4, or nothing.
std::optional<Permutation> as_permutation(const at::Tensor& q);

// The exponential of the skew part of any X [n, n]: orthogonal to rounding, the identity for X = 0,
// and differentiable. keeps_mean: one that leaves (1, ..., 1) where it is.
at::Tensor rotation_of(const at::Tensor& x, bool keeps_mean);

}  // namespace refract
