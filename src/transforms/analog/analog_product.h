// The product of a linear layer with a weight on analog tiles (transforms/analog/tiles.h), or on
// digital ones beside the memory ("sram"), and the layers made of it.
//
// In training the weight gets Gaussian noise, drawn anew in each step; in an evaluation it is what
// the devices of one chip hold (transforms/analog/devices.h), programmed once: the draws depend on
// the chip's number, the layer's name and the place in the weight alone, the reading noise on the
// time too.
//
// A running range is the buffer "<name>.x_range", float [tiles, 2] of (-r, r), (+inf, -inf) until
// it is set. A learned one is the parameter "<name>.input_range" [tiles] with the buffer
// "<name>.input_batches", float [1]: its first `x_init` training steps set it to the mean of three
// deviations of what a tile saw, and its gradient moves it.
#pragma once
#include <memory>

#include "model/slots.h"
#include "transforms/analog/analog_parameters.h"
#include "transforms/media/medium_product.h"

namespace refract {

// Fails (usage) for a learned range: such a product declares no parameter.
std::unique_ptr<MediumProduct> make_analog_product(Build build, const LinearSpec& spec,
                                                   const AnalogParameters& parameters);
std::unique_ptr<LinearLayer> make_analog_linear(Build build, const LinearSpec& spec,
                                                const AnalogParameters& parameters);

}  // namespace refract
