// Random directions in the space of a model's trainable parameters: flat, in the order of the
// arena, on the CPU, in the type of the master values. What is padding there is 0. A parameter's
// numbers come from the stream "curvature:<name>:<parameter>", so they depend on the seed and on
// names alone.
#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string>

#include "model/decoder.h"

namespace refract {

// +1 and -1, equally likely.
at::Tensor random_signs(const Decoder& model, uint64_t seed, const std::string& name);

// Normally distributed, each filter as long as the model's own (Li et al., "Visualizing the loss
// landscape of neural nets", arXiv 1712.09913, section 4): a filter is what one output of a matrix
// multiplies its input by, a row, or one token's row of an embedding. Vectors (biases,
// normalizations) stay as they are: 0.
at::Tensor filter_normalized(const Decoder& model, uint64_t seed, const std::string& name);

}  // namespace refract
