// When the guides of self-guided training work, and on which data (Wei et al., arXiv 2406.16450,
// section 3.3; the layers are in transforms/guided.h).
//
// Of T steps on fresh data the first Tg = round(ratio T) are guided, with the guide's share a =
// (1 + cos(pi t / Tg)) / 2 or 1 - t / Tg. `fixedstep` ends after T steps. `fixedflop` goes on for
// Tg further steps on the data of exactly the first Tg ones: with reduce_flop and the paper's
// ratios the run then costs as much as the dense model's. The learning rate falls over all steps.
#pragma once
#include <cstdint>

#include "train/run_config.h"

namespace refract {

class SelfGuidedPlan {
 public:
  // Of a run of `fresh_steps` steps on fresh data. Fails (usage) where the ratio guides no step.
  SelfGuidedPlan(const RunConfig& config, int64_t fresh_steps);

  int64_t guided_steps() const { return guided_; }
  int64_t total_steps() const { return total_; }

  // The guide's share in the 0-based `step`: 1 in the first, 0 from guided_steps() on.
  double alpha(int64_t step) const;
  // Whether the step computes the guides. With reduce_flop that is drawn with probability alpha
  // from the run's seed and the step; the others cost what the structured layers cost, and leave
  // the guides and their moments as they are.
  bool guided(int64_t step) const;
  // How many steps of the run do.
  int64_t count_guided() const;

  // The step whose data `step` trains on: itself, or in the repeat an early one.
  int64_t data_step(int64_t step) const { return step < fresh_ ? step : step - fresh_; }

 private:
  int64_t fresh_, guided_ = 0, total_;
  bool linear_, reduce_flop_;
  uint64_t seed_;
};

}  // namespace refract
