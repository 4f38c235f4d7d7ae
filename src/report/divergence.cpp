#include "report/divergence.h"

#include <fmt/format.h>

#include <array>
#include <cmath>

namespace refract {
namespace {

constexpr double kWeight = 0.8;
constexpr int kFirstPoints = 3;  // too few to judge

const Curve& find(const std::map<std::string, Curve>& metrics, const std::string& name) {
  static const Curve none;
  const auto found = metrics.find(name);
  return found == metrics.end() ? none : found->second;
}

std::string not_finite(const std::map<std::string, Curve>& metrics) {
  static constexpr std::array<const char*, 4> kWatched = {"loss", "mean_loss", "grad_norm",
                                                          "validation_loss"};
  for (const char* name : kWatched) {
    const Curve& curve = find(metrics, name);
    for (size_t i = 0; i < curve.values.size(); ++i) {
      if (!std::isfinite(curve.values[i])) {
        return fmt::format("{} is not finite at step {}", name, curve.steps[i]);
      }
    }
  }
  return "";
}

}  // namespace

std::string divergence(const std::map<std::string, Curve>& metrics, double margin) {
  if (std::string reason = not_finite(metrics); !reason.empty()) return reason;
  const Curve& loss = find(metrics, "mean_loss");
  if (loss.values.empty()) return "";
  const Curve& validation = find(metrics, "validation_loss");
  const bool evaluated = !validation.steps.empty() && validation.steps.front() == 0;
  const double start = evaluated ? validation.values.front() : loss.values.front();
  double sum = 0, norm = 0;
  for (size_t i = 0; i < loss.values.size(); ++i) {
    sum = kWeight * sum + (1 - kWeight) * loss.values[i];
    norm = kWeight * norm + (1 - kWeight);
    if (i + 1 < kFirstPoints || sum / norm <= start + margin) continue;
    return fmt::format("the smoothed loss is {:.3f} at step {}, {:.3f} at the start", sum / norm,
                       loss.steps[i], start);
  }
  return "";
}

}  // namespace refract
