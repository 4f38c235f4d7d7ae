#include "report/sweep/sweep_page.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>

#include "core/config.h"
#include "report/run/run_head.h"
#include "report/run_report.h"

namespace refract {
namespace {

namespace fs = std::filesystem;

std::optional<double> as_number(const std::string& value) {
  const nlohmann::json parsed = parse_override("value=" + value).second;
  return parsed.is_number() ? std::optional(parsed.get<double>()) : std::nullopt;
}

// One swept key as the x axis of a plot.
struct Axis {
  std::string name;
  std::vector<std::string> values;  // different ones: numbers in their order, else as given
  std::vector<double> places;       // of the values on the axis
  bool numeric = true;

  double place(const std::string& value) const {
    return places[static_cast<size_t>(std::ranges::find(values, value) - values.begin())];
  }
  // More than a decade is read on a logarithmic axis.
  bool logarithmic() const {
    if (!numeric || places.size() < 2) return false;
    const auto [low, high] = std::ranges::minmax(places);
    return low > 0 && high / low >= 10;
  }
};

Axis make_axis(const SweepRecord& sweep, size_t key, std::string name) {
  Axis axis;
  axis.name = std::move(name);
  for (const SweepRun& run : sweep.runs) {
    const std::string& value = run.values[key];
    if (std::ranges::find(axis.values, value) == axis.values.end()) axis.values.push_back(value);
    axis.numeric = axis.numeric && as_number(value);
  }
  if (axis.numeric) {
    std::ranges::stable_sort(axis.values, {}, [](const auto& v) { return *as_number(v); });
  }
  for (size_t i = 0; i < axis.values.size(); ++i) {
    axis.places.push_back(axis.numeric ? *as_number(axis.values[i]) : static_cast<double>(i));
  }
  return axis;
}

// "rank=4, seed=2": the values of the keys other than `key`.
std::string others(const SweepRun& run, const std::vector<Axis>& axes, size_t key) {
  std::string out;
  for (size_t i = 0; i < axes.size(); ++i) {
    if (i != key)
      out += fmt::format("{}{}={}", out.empty() ? "" : ", ", axes[i].name, run.values[i]);
  }
  return out;
}

// Final loss over one key, one curve for each setting of the others.
PlotSpec loss_plot(const SweepOutcome& outcome, const std::vector<Axis>& axes, size_t key) {
  const Axis& axis = axes[key];
  PlotSpec plot{.title = fmt::format("Final loss over {}", axis.name),
                .x_label = outcome.sweep.keys[key],
                .y_label = "loss (nats per token)",
                .log_x = axis.logarithmic()};
  if (!axis.numeric) plot.x_names = axis.values;
  plot.half_width = axes.size() > 1;
  std::map<std::string, std::map<double, const SweepRow*>> curves;
  for (const SweepRow& row : outcome.rows) {
    if (row.run.state != SweepState::kFinished || !std::isfinite(row.final_loss())) continue;
    curves[others(row.run, axes, key)][axis.place(row.run.values[key])] = &row;
  }
  for (const auto& [name, points] : curves) {
    Series series{.name = name, .mode = SeriesMode::kLinesMarkers};
    for (const auto& [x, row] : points) {
      series.x.push_back(x);
      series.y.push_back(row->final_loss());
      series.labels.push_back(row->run.name);
    }
    plot.series.push_back(std::move(series));
  }
  return plot;
}

// Of a sweep over exactly two keys.
MatrixSpec loss_matrix(const SweepOutcome& outcome, const std::vector<Axis>& axes) {
  MatrixSpec matrix{.title = fmt::format("Final loss over {} and {}", axes[0].name, axes[1].name),
                    .row_label = axes[0].name,
                    .column_label = axes[1].name,
                    .value_label = "loss (nats per token)",
                    .rows = axes[0].values,
                    .columns = axes[1].values,
                    .digits = 4};
  matrix.values.assign(matrix.rows.size(), std::vector<double>(matrix.columns.size(), NAN));
  const auto place = [](const Axis& axis, const std::string& value) {
    return static_cast<size_t>(std::ranges::find(axis.values, value) - axis.values.begin());
  };
  for (const SweepRow& row : outcome.rows) {
    if (row.run.state != SweepState::kFinished) continue;
    matrix.values[place(axes[0], row.run.values[0])][place(axes[1], row.run.values[1])] =
        row.final_loss();
  }
  return matrix;
}

std::string summary(const SweepOutcome& outcome) {
  std::map<SweepState, int> counts;
  for (const SweepRow& row : outcome.rows) ++counts[row.run.state];
  std::string text = fmt::format("{} runs of {}:", outcome.rows.size(), outcome.sweep.recipe);
  for (const auto& [state, count] : counts) {
    text += fmt::format(" {} {},", count, state_name(state));
  }
  text.back() = '.';
  return text;
}

}  // namespace

Page sweep_page(const fs::path& folder, const SweepOutcome& outcome) {
  Page page(fmt::format("Sweep {}", fs::absolute(folder).lexically_normal().filename().string()),
            summary(outcome));
  page.heading("Outcome");
  page.table(outcome_rows(outcome));
  const std::vector<std::string> names = short_keys(outcome.sweep.keys);
  std::vector<Axis> axes;
  for (size_t i = 0; i < names.size(); ++i) axes.push_back(make_axis(outcome.sweep, i, names[i]));
  page.heading("Final loss");
  std::vector<PlotSpec> plots;
  for (size_t i = 0; i < axes.size(); ++i) {
    if (PlotSpec plot = loss_plot(outcome, axes, i); !plot.series.empty())
      plots.push_back(std::move(plot));
  }
  for (PlotSpec& plot : plots) {  // the same losses over another key: to be compared by eye
    if (plots.size() > 1) plot.y_range = common_y_range(plots);
    page.plot(plot);
  }
  if (axes.size() == 2) page.matrix(loss_matrix(outcome, axes));
  std::vector<RunRecord> begun;
  for (const SweepRow& row : outcome.rows) {
    if (row.record.last_step() >= 0) begun.push_back(row.record);
  }
  if (begun.empty()) return page;
  add_head(page, begun);
  page.heading("Curves");
  add_curves(page, begun);
  page.heading("Final figures");
  add_final_figures(page, begun);
  page.heading("What differs");
  add_setting_differences(page, begun);
  return page;
}

}  // namespace refract
