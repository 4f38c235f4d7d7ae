#include "train/self_guided.h"

#include <cmath>
#include <numbers>

#include "core/error.h"
#include "core/random.h"

namespace refract {

SelfGuidedPlan::SelfGuidedPlan(const RunConfig& config, int64_t fresh_steps)
    : fresh_(fresh_steps),
      total_(fresh_steps),
      linear_(config.self_guided.schedule == "linear"),
      reduce_flop_(config.self_guided.reduce_flop),
      seed_(static_cast<uint64_t>(config.run.seed)) {
  const RunConfig::SelfGuided& settings = config.self_guided;
  if (settings.mode == "none") return;
  guided_ = std::llround(settings.ratio * static_cast<double>(fresh_steps));
  if (guided_ < 1) {
    fail_usage("self_guided.ratio = {} guides none of the {} steps; raise it or train longer",
               settings.ratio, fresh_steps);
  }
  if (settings.mode == "fixedflop") total_ += guided_;
}

double SelfGuidedPlan::alpha(int64_t step) const {
  if (step >= guided_) return 0;
  const double part = static_cast<double>(step) / static_cast<double>(guided_);
  return linear_ ? 1 - part : (1 + std::cos(std::numbers::pi * part)) / 2;
}

bool SelfGuidedPlan::guided(int64_t step) const {
  if (step >= guided_) return false;
  if (!reduce_flop_) return true;
  const PhiloxKey key = philox_key(seed_, stream_id("self_guided"));
  return philox_word(key, static_cast<uint64_t>(step), 0) * 0x1p-32 < alpha(step);
}

int64_t SelfGuidedPlan::count_guided() const {
  int64_t count = 0;
  for (int64_t step = 0; step < guided_; ++step) count += guided(step) ? 1 : 0;
  return count;
}

}  // namespace refract
