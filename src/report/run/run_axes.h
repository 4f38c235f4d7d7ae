// What a run's curves can be plotted against beside steps: tokens, FLOPs and time.
#pragma once
#include <string>
#include <vector>

#include "report/page/figures.h"
#include "report/run_record.h"

namespace refract {

// A curve that grows with the steps, from (0, 0) on; empty where the run doesn't say.
Curve training_flops_by_step(const RunRecord& run);    // the sum of its metric step_flops
Curve training_seconds_by_step(const RunRecord& run);  // of step_ms: steps alone, without pauses

// The value at a step, on the straight line between its neighbours; beyond the last one straight
// on. NaN for an empty curve.
double value_at(const Curve& curve, double step);

// Gives the plot, whose series are curves over steps, the other axes that any of the runs has.
// Series i is of runs[owners[i]].
void add_other_axes(PlotSpec& plot, const std::vector<RunRecord>& runs,
                    const std::vector<size_t>& owners);

}  // namespace refract
