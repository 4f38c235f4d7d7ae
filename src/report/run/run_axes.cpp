#include "report/run/run_axes.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <string_view>

namespace refract {
namespace {

// The sum of a metric that says what each step since the log point before took.
Curve summed(const RunRecord& run, std::string_view metric, double unit) {
  const Curve& each = run.curve(metric);
  Curve sum;
  if (each.steps.empty()) return sum;
  sum.steps = {0};
  sum.values = {0};
  for (size_t i = 0; i < each.steps.size(); ++i) {
    if (!std::isfinite(each.values[i])) continue;
    const double steps = each.steps[i] - sum.steps.back();
    sum.steps.push_back(each.steps[i]);
    sum.values.push_back(sum.values.back() + unit * steps * each.values[i]);
  }
  return sum;
}

Curve tokens_by_step(const RunRecord& run) {
  Curve tokens = run.curve("tokens");
  if (tokens.steps.empty()) return tokens;
  tokens.steps.insert(tokens.steps.begin(), 0);
  tokens.values.insert(tokens.values.begin(), 0);
  return tokens;
}

Curve minutes_by_step(const RunRecord& run) {
  Curve minutes = training_seconds_by_step(run);
  for (double& value : minutes.values) value /= 60;
  return minutes;
}

struct OtherAxis {
  const char* label;
  Curve (*of)(const RunRecord&);
};
constexpr std::array<OtherAxis, 3> kOtherAxes = {{{"training tokens", tokens_by_step},
                                                  {"training FLOPs", training_flops_by_step},
                                                  {"training time (minutes)", minutes_by_step}}};

}  // namespace

Curve training_flops_by_step(const RunRecord& run) { return summed(run, "step_flops", 1); }
Curve training_seconds_by_step(const RunRecord& run) { return summed(run, "step_ms", 1e-3); }

double value_at(const Curve& curve, double step) {
  const std::vector<double>&x = curve.steps, &y = curve.values;
  if (x.empty()) return std::numeric_limits<double>::quiet_NaN();
  if (x.size() == 1) return y[0];
  const auto after = std::ranges::lower_bound(x, step) - x.begin();
  const auto i = static_cast<size_t>(
      std::clamp<std::ptrdiff_t>(after, 1, static_cast<std::ptrdiff_t>(x.size()) - 1));
  if (x[i] == x[i - 1]) return y[i];
  return y[i - 1] + (y[i] - y[i - 1]) * (step - x[i - 1]) / (x[i] - x[i - 1]);
}

void add_other_axes(PlotSpec& plot, const std::vector<RunRecord>& runs,
                    const std::vector<size_t>& owners) {
  for (const OtherAxis& axis : kOtherAxes) {
    std::vector<Curve> curves;
    for (const RunRecord& run : runs) curves.push_back(axis.of(run));
    if (std::ranges::all_of(curves, [](const Curve& c) { return c.steps.empty(); })) continue;
    plot.other_x.emplace_back(axis.label);
    for (size_t i = 0; i < plot.series.size(); ++i) {
      std::vector<double> x;
      for (const double step : plot.series[i].x) x.push_back(value_at(curves[owners[i]], step));
      plot.series[i].other_x.push_back(std::move(x));
    }
  }
}

}  // namespace refract
