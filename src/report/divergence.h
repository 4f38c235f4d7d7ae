// When a run has diverged, judged from its metrics alone.
#pragma once
#include <map>
#include <string>

#include "report/run_record.h"

namespace refract {

// Why the run counts as diverged, or nothing: a metric is not finite, or the smoothed training loss
// (exponential moving average over log points with weight 0.8, corrected for its start, from the
// third point on) was more than `margin` nats above the start at any log point. The start is the
// validation loss before the first step where there is one, else the first training loss. The
// verdict depends on the curves only, not on when it is asked for.
std::string divergence(const std::map<std::string, Curve>& metrics, double margin);

}  // namespace refract
