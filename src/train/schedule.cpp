#include "train/schedule.h"

#include <algorithm>
#include <cmath>
#include <numbers>

namespace refract {
namespace {

using Schedule = RunConfig::Schedule;

double cosine(double part) { return (1 + std::cos(std::numbers::pi * part)) / 2; }

// From 1 down to 0 while `part` goes from 0 to 1.
double shape(const Schedule& s, double part) {
  if (s.kind == "linear") return 1 - part;
  if (s.kind == "polynomial") return std::pow(1 - part, s.power);
  // The last cycle ends in 0, where the next one would begin with 1.
  if (s.kind == "cosine_with_restarts")
    return part >= 1 ? 0.0 : cosine(std::fmod(s.cycles * part, 1.0));
  return cosine(part);
}

double stepped(const Schedule& s, int64_t step, int64_t steps) {
  const auto passed = [&](double milestone) {
    const double at = milestone < 1 ? milestone * static_cast<double>(steps) : milestone;
    return step >= static_cast<int64_t>(at);
  };
  return std::pow(s.gamma, std::ranges::count_if(s.milestones, passed));
}

}  // namespace

int64_t warmup_steps(const RunConfig& config, int64_t steps) {
  const double warmup = config.schedule.warmup;
  return std::llround(warmup < 1 ? warmup * static_cast<double>(steps) : warmup);
}

double learning_rate(const RunConfig& config, int64_t step, int64_t steps) {
  const Schedule& s = config.schedule;
  const double peak = config.optimizer.lr;
  const int64_t warmup = warmup_steps(config, steps);
  if (step < warmup) {
    const double part = static_cast<double>(step + s.warmup_from) / static_cast<double>(warmup);
    return peak * (s.start + (1 - s.start) * part);
  }
  if (s.kind == "constant") return peak;
  if (s.kind == "multistep") return peak * stepped(s, step, steps);
  const double length = static_cast<double>(std::max<int64_t>(1, steps - warmup));
  const double part = std::min(1.0, static_cast<double>(step - warmup) / length);
  return peak * (s.final + (1 - s.final) * shape(s, part));
}

}  // namespace refract
