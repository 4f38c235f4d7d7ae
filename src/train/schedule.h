// The learning rate as a function of the step.
#pragma once
#include <cstdint>

#include "train/run_config.h"

namespace refract {

// Learning rate of the 0-based `step` out of `steps`. The warm-up rises linearly from start * lr
// and reaches lr at its last step; then constant, linear or cosine down to final * lr at `steps`.
double learning_rate(const RunConfig& config, int64_t step, int64_t steps);

// Warm-up steps out of `steps`: schedule.warmup, or below 1 that fraction.
int64_t warmup_steps(const RunConfig& config, int64_t steps);

}  // namespace refract
