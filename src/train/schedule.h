// The learning rate as a function of the step.
#pragma once
#include <cstdint>

#include "train/run_config.h"

namespace refract {

// Learning rate of the 0-based `step` out of `steps`. The warm-up rises linearly from start * lr
// and reaches lr at its last step, or with warmup_from = 0 at the step after it, as transformers
// counts. Then, with t the part of the other steps that is over:
//   constant              lr
//   linear, cosine        down to final * lr at `steps`
//   cosine_with_restarts  the cosine `cycles` times, each from lr
//   polynomial            (1 - t)^power, down to final * lr
//   multistep             lr * gamma^(milestones at or before the step, of the whole run)
// The first five are transformers' get_*_schedule_with_warmup with their end at final * lr, the
// last is torch.optim.lr_scheduler.MultiStepLR.
double learning_rate(const RunConfig& config, int64_t step, int64_t steps);

// Warm-up steps out of `steps`: schedule.warmup, or below 1 that fraction.
int64_t warmup_steps(const RunConfig& config, int64_t steps);

}  // namespace refract
