// Linear layers that share their input, of the kind `spiking`: their input becomes levels or spikes
// once, by one set of neurons.
#pragma once
#include <memory>
#include <string>

#include "model/slots.h"
#include "transforms/spiking/spiking_product.h"

namespace refract {

// In a SpikeTime the bias enters in equal parts in the first steps, as many as there are levels.
// Null where only some members have a bias. Enters the members under the name `kind`.
std::unique_ptr<Projections> make_spiking_projections(Build build, const ProjectionSpec& spec,
                                                      const SpikingParameters& parameters,
                                                      const std::string& kind);

}  // namespace refract
