// Learned matching: the maps of a model are trained for the loss between it and another.
//
// At each step the point a A + (1 - a) S(B) with a random a, where S is what LearnedMaps makes of
// its free numbers, sees a random batch, and Adam moves the numbers against the gradient of the
// loss (Theus et al., "Generalized Linear Mode Connectivity for Transformers", arXiv 2506.22712).
// The weights of both models stay what they are up to S.
#pragma once
#include <cstdint>
#include <functional>

#include "analysis/matching/learned_maps.h"
#include "analysis/matching/symmetry.h"
#include "data/tokens.h"
#include "model/decoder.h"

namespace refract {

struct LearnOptions {
  int64_t steps = 0;
  bool both = false;      // A has maps of its own that are learned as well
  double rate = 1e-2;     // of Adam for all free numbers, to 0 along half a cosine
  int64_t tokens = 4096;  // of a batch, in whole windows
  uint64_t seed = 1;      // of batches and points
  // Called after each step with its number from 1 on and its loss, which is that of one batch at
  // one point.
  std::function<void(int64_t step, double loss)> done;
};

struct LearnReport {
  double before = 0, after = 0;  // loss half way, on one batch that is not trained on more often
};

// Changes `b`, and with `both` also `a`, each to weights that compute the same function. `point` is
// a model of the weights' configuration that computes; its parameters and gradients are
// overwritten. `stream` has the tokens, `context` the length of a window.
LearnReport learn_matching(Decoder& point, NamedWeights& a, NamedWeights& b,
                           const MapClasses& classes, const TokenStream& stream, int64_t context,
                           const LearnOptions& options);

}  // namespace refract
