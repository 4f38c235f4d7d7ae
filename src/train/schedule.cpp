#include "train/schedule.h"

#include <algorithm>
#include <cmath>
#include <numbers>

namespace refract {

int64_t warmup_steps(const RunConfig& config, int64_t steps) {
  const double warmup = config.schedule.warmup;
  return std::llround(warmup < 1 ? warmup * static_cast<double>(steps) : warmup);
}

double learning_rate(const RunConfig& config, int64_t step, int64_t steps) {
  const double peak = config.optimizer.lr;
  const int64_t warmup = warmup_steps(config, steps);
  if (step < warmup) {
    const double part = static_cast<double>(step + 1) / static_cast<double>(warmup);
    return peak * (config.schedule.start + (1 - config.schedule.start) * part);
  }
  if (config.schedule.kind == "constant") return peak;
  const double length = static_cast<double>(std::max<int64_t>(1, steps - warmup));
  const double part = std::min(1.0, static_cast<double>(step - warmup) / length);
  const double shape =
      config.schedule.kind == "linear" ? 1 - part : (1 + std::cos(std::numbers::pi * part)) / 2;
  return peak * (config.schedule.final + (1 - config.schedule.final) * shape);
}

}  // namespace refract
