// Plots about deeds: rescues, journeys, skills, baking, gardens.
#pragma once
#include <span>

#include "data/stories/teller.h"

namespace refract::stories {

// A plot that is listed twice is told twice as often.
std::span<const Plot> deed_plots();

}  // namespace refract::stories
