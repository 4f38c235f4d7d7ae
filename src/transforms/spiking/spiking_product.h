// A matrix product whose first operand, or both, are levels with a learned scale, and which runs on
// spikes: what linear layers and attention of the kind `spiking` are made of.
#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <string>

#include "model/slots.h"
#include "transforms/media/medium_product.h"
#include "transforms/spiking/spiking_operand.h"

namespace refract {

struct SpikingParameters {
  int64_t levels = 32;
  bool spikes = false;      // outside training the product runs on spikes
  int64_t time_steps = 32;  // for so many steps
};

// x W^T, with the operand "<name>.x".
std::unique_ptr<MediumProduct> make_spiking_linear(Build build, const std::string& name,
                                                   const SpikingParameters& parameters);
// q k^T with the operands "<name>.q" and "<name>.k", and probabilities v with
// "<name>.probabilities" and "<name>.v". A query sees `window` keys at most; 0: all before it.
std::unique_ptr<MediumProduct> make_spiking_scores(Build build, const std::string& name,
                                                   const SpikingParameters& parameters,
                                                   int64_t window);
std::unique_ptr<MediumProduct> make_spiking_values(Build build, const std::string& name,
                                                   const SpikingParameters& parameters,
                                                   int64_t window);

}  // namespace refract
