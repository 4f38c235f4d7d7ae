// Number formats by their names.
#pragma once
#include <optional>
#include <string>

#include "ops/numeric/quantize.h"

namespace refract {

// "e4m3", "e5m2", "e2m3", "e3m2", "e2m1", any other e<1..6>m<1..6> of up to 8 bits with its sign,
// and "int8" (a sign, an integer bit and six fraction bits). Elements only: scaling is none.
// E4M3 and E5M2 have the maxima of OCP's formats, 448 and 57344; the others use every code.
// "none": no format. Fails (usage) naming `where` for any other text.
std::optional<NumberFormat> number_format(const std::string& name, const std::string& where);

// As the op counts them: "even", "away", "zero", "stochastic".
int64_t rounding_mode(const std::string& name);

}  // namespace refract
