// Changes inside the heads of a dense decoder that leave its function as it is.
//
// Scores are products q k, so keys may be mapped by any invertible N and their queries by N^-T;
// values by any invertible M and the columns of the output behind them by M^-1. All query heads of
// a key/value group share its maps. What turns q and k restricts N to what commutes with it: for
// rotary positions a rotation and a scale for each pair of channels that turns together, and for
// norms of q and k nothing but the identity. (Theus et al., "Generalized Linear Mode Connectivity
// for Transformers", arXiv 2506.22712.)
#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>

#include "analysis/matching/symmetry.h"
#include "model/config.h"

namespace refract {

// N and M of one layer, by key/value group, and their inverses: [K, D, D] each.
struct HeadMaps {
  at::Tensor keys, values;
  at::Tensor inverse_keys, inverse_values;
};
// Of orthogonal maps.
HeadMaps rotations(const at::Tensor& keys, const at::Tensor& values);

// Differentiable; in the weights' type and on their device. Keys' maps must be among those that
// the model allows.
void map_heads(NamedWeights& weights, const ModelConfig& config, int64_t layer,
               const HeadMaps& maps);

// Maps exp(X) and exp(Y) of any X, Y [..., D, D], X taken to what the model allows for keys:
// invertible to rounding, identities for 0, and differentiable.
HeadMaps invertible_maps(const at::Tensor& x, const at::Tensor& y, const ModelConfig& config);

// The orthogonal map N with the largest <M, N> among those that the model allows, for each score M
// [..., D, D].
at::Tensor best_key_rotation(const at::Tensor& score, const ModelConfig& config);

}  // namespace refract
