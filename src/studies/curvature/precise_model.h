// A loaded model in the number format that a derivative by differences wants.
#pragma once
#include <c10/core/ScalarType.h>

#include <string>

#include "runs/loaded_model.h"

namespace refract {

// "float64", "fp32", or "auto": float64 for plain layers on a CPU, fp32 with [[transform]] rules
// and on a GPU. Fails (usage) for other words.
at::ScalarType derivative_dtype(const std::string& precision, const LoadedModel& loaded);

// Puts a model with the same numbers in the place of loaded.model: parameters and products are of
// `dtype`, layers are those of training (none is merged), and all that trains has a gradient.
void make_precise(LoadedModel& loaded, at::ScalarType dtype);

}  // namespace refract
