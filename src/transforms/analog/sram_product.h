// Digital arithmetic beside a static memory, on tiles whose vectors share an exponent (the digital
// tile of NewComputeBench): a vector of a tile's inputs, of x and of each output's weights, is
//   2^e m with e = clamp(ceil(log2 max|x|), -2^(E - 1), 2^(E - 1) - 1)
// and a signed m of M bits behind the point: round(x / 2^e 2^M), within -2^M and 2^M - 1. "int8"
// and "int4" are whole numbers of one scale for each such vector. Partial sums are exact, or each
// is multiplied by 1 + s xi.
#pragma once
#include <ATen/core/Tensor.h>

#include <memory>
#include <string>

#include "model/slots.h"
#include "transforms/analog/analog_parameters.h"
#include "transforms/media/medium_product.h"

namespace refract {

std::unique_ptr<MediumProduct> make_sram_product(const LinearSpec& spec,
                                                 const AnalogParameters& parameters);

// x [n, K], float or double, with vectors of `rows` of its K: as the tile holds it. "none": x.
at::Tensor shared_exponent(const at::Tensor& x, int64_t rows, const std::string& format);
// Bits of an element in that format, its sign included; 16 for "none".
double sram_bits(const std::string& format);

}  // namespace refract
