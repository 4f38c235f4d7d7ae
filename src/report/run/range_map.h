// The ranges that transforms have followed, as one picture.
#pragma once
#include <vector>

#include "report/page/figures.h"
#include "report/run_ranges.h"

namespace refract {

// The larger end of every range in the newest checkpoint that has it: layers x roles ("q_proj, x",
// "attention, scores"), coloured by the logarithm. A range outside of the layers has the row
// "other".
MatrixSpec range_map(const std::vector<RangeTrack>& ranges);

}  // namespace refract
