// Optical attention: both products of every head are optical, see
// ops/optical/attention/attention.h and docs/optical.md.
//
// Its ranges are the buffer "<name>.ranges", float [5, 2] of q, k, scores, v and output, (+inf,
// -inf) until they are set. They move in training only. Noise is drawn per token of the sequence,
// so that decoding with a cache draws what the whole sequence draws.
#pragma once
#include <memory>

#include "model/slots.h"
#include "transforms/optical/optical_parameters.h"

namespace refract {

// Fails (usage) for an attention with dropout, which the op doesn't have.
std::unique_ptr<AttentionCore> make_optical_attention(Build build, const AttentionSpec& spec,
                                                      const OpticalParameters& parameters);

}  // namespace refract
