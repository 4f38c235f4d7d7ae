// Maps of a model that leave its function alone, as functions of free numbers with gradients.
#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

#include "analysis/matching/symmetry.h"
#include "model/config.h"

namespace refract {

// What may move.
struct MapClasses {
  bool stream = true;  // orthogonal maps of the residual stream; the weights are folded ones
  bool heads = true;   // invertible maps inside heads
  bool units = true;   // permutations of feed-forward units
};

// A smooth map is the exponential of free numbers (orthogonal.h, head_maps.h). A permutation is the
// best one for scores of its own; its gradient is that of the matrix with a 1 for each unit, and
// moves the scores ("straight through", as in Theus et al., arXiv 2506.22712).
class LearnedMaps {
 public:
  // What an optimizer moves: `value` by the gradient of `leaf`, which is the same tensor for a
  // smooth map.
  struct Free {
    at::Tensor value, leaf;
    bool units = false;
  };

  // Identities, for weights of `config`. Where units may move, `scores` has theirs by layer, [F, F]
  // on any device: what matching each of them with each other is worth. They are scaled.
  LearnedMaps(const ModelConfig& config, const MapClasses& classes,
              const std::vector<at::Tensor>& scores, at::Device device);

  // Differentiable with respect to the leaves, in the weights' type and on their device.
  NamedWeights apply(const NamedWeights& weights) const;

  std::vector<Free>& free() { return free_; }
  // Takes the best permutations for the scores as they are now; returns how many units have
  // another place than before.
  int64_t assign_units();

 private:
  ModelConfig config_;
  MapClasses classes_;
  at::Tensor stream_, keys_, values_;  // [C, C], [L, K, D, D] twice
  std::vector<Permutation> units_;
  std::vector<Free> free_;
  size_t first_unit_ = 0;  // in free_
};

}  // namespace refract
