// Plots about things: lost, broken, given, traded, taken.
#pragma once
#include <span>

#include "data/stories/teller.h"

namespace refract::stories {

// A plot that is listed twice is told twice as often.
std::span<const Plot> thing_plots();

}  // namespace refract::stories
