// Weights whose normalizations have no scales of their own, so that orthogonal maps of the residual
// stream leave the function alone.
//
// A scale is multiplied into the products behind it. What a LayerNorm takes away, the mean over the
// channels, is taken out of all that writes to the stream; on such a stream it is an RMSNorm, and
// commutes with every orthogonal map that leaves the vector (1, ..., 1) where it is. (A stream
// without mean has no part along that vector, so such maps are all there are.)
#pragma once
#include "analysis/matching/symmetry.h"
#include "model/config.h"

namespace refract {

// The settings of folded weights: those of `config` with a head of its own, since the scale of the
// last normalization has a place in the head and none in an embedding that is tied to it.
ModelConfig folded_config(const ModelConfig& config);

// Turns weights of `config` into weights of folded_config(config) that compute the same. All scales
// become 1. The bias of a LayerNorm goes into the biases of the layers behind it; where those have
// none, as the head, it stays, divided by the scale. Fails where that scale is 0.
void fold_norms(NamedWeights& weights, const ModelConfig& config);

// Turns folded weights into ones with the scales and biases of `like`, weights of folded_config().
// Fails where a scale is 0.
void unfold_norms(NamedWeights& weights, const ModelConfig& config, const NamedWeights& like);

}  // namespace refract
