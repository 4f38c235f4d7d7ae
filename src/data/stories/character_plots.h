// Plots about characters: fables, fears, lies, wishes, newcomers.
#pragma once
#include <span>

#include "data/stories/teller.h"

namespace refract::stories {

// A plot that is listed twice is told twice as often.
std::span<const Plot> character_plots();

}  // namespace refract::stories
