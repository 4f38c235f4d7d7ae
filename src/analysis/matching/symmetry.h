// Changes of a dense decoder's weights that leave its function as it is.
//
// Permuting the units of a feed-forward layer; the attention heads of a layer, key/value groups
// first and query heads inside their group, each as a whole (so that rotary positions are not
// touched); the channels of the residual stream, or, of folded weights (folding.h), any orthogonal
// map of it. What may be done inside a head is in head_maps.h.
#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "model/decoder.h"

namespace refract {

using Permutation = std::vector<int64_t>;  // new index i holds what was at p[i]

// float64 on the CPU, under the model's names. Copies share tensors: what changes one here puts a
// new tensor in its place.
using NamedWeights = std::map<std::string, at::Tensor>;
NamedWeights named_weights(Decoder& model);
// The name of a parameter of one layer: in_layer(3, "mlp.up_proj.weight").
std::string in_layer(int64_t layer, const std::string& name);
// Rounds into the arena.
void write_weights(const NamedWeights& weights, Decoder& model);

// Heads of a layer: groups[i] is the old group at place i; inner[i] orders the query heads of the
// group that comes to place i.
struct HeadPermutation {
  Permutation groups;
  std::vector<Permutation> inner;
};

void permute_units(NamedWeights& weights, int64_t layer, const Permutation& units);
void permute_heads(NamedWeights& weights, const ModelConfig& config, int64_t layer,
                   const HeadPermutation& heads);
void permute_residual(NamedWeights& weights, const ModelConfig& config,
                      const Permutation& channels);
// x -> Q x for orthogonal Q [C, C], of folded weights (folding.h); of a model with LayerNorm Q must
// leave the vector (1, ..., 1) where it is.
void rotate_residual(NamedWeights& weights, const ModelConfig& config, const at::Tensor& q);

// What reads the residual stream along its last dimension, and what writes to it along its first.
struct ResidualUsers {
  std::vector<std::string> readers, writers;
  std::vector<std::string> scales;  // per-channel vectors of the normalizations, biases too
};
ResidualUsers residual_users(const NamedWeights& weights, const ModelConfig& config);

}  // namespace refract
