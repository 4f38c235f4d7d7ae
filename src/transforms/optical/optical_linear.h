// Optical linear layers: y = Q_noisy(Q(x) . Q_lut(W)^T) + b with the dense layer's gradient, see
// ops/optical/matmul/product.h and docs/optical.md.
//
// A layer's ranges are buffers of the model: "<name>.x_range", "<name>.w_range" and
// "<name>.out_range", float [2], (+inf, -inf) until they are set. They move in training only. The
// members of a group share the x_range of the first one.
#pragma once
#include <memory>
#include <string>

#include "model/slots.h"
#include "transforms/lora/adapter_group.h"
#include "transforms/optical/optical_parameters.h"

namespace refract {

std::unique_ptr<LinearLayer> make_optical_linear(Build build, const LinearSpec& spec,
                                                 const OpticalParameters& parameters);

// The members of a group by one product: the input is quantized once. Null where only some members
// have a bias, where there are more than the op takes, or where products are granular.
// Enters the members in build.transformed under the name `kind`. With `adapters` the weights are
// frozen and multiplied with what adapters add to them: y = Q_noisy(Q(x) . Q_lut(W + s B A)^T) + b,
// w_range is that of W + s B A, and the gradients of A and B are those of the dense product.
std::unique_ptr<Projections> make_optical_projections(Build build, const ProjectionSpec& spec,
                                                      const OpticalParameters& parameters,
                                                      const std::string& kind,
                                                      const LoraSettings* adapters = nullptr);

}  // namespace refract
