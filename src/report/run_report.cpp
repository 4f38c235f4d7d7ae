#include "report/run_report.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <iterator>
#include <map>
#include <set>

#include "core/log.h"
#include "core/progress.h"
#include "report/energy/energy_record.h"
#include "report/run/evaluation_record.h"
#include "report/run/run_axes.h"
#include "report/run/run_head.h"
#include "report/run_details.h"

namespace refract {
namespace {

constexpr size_t kMostPoints = 1500;  // of a curve on the page

// Means over equal stretches of a curve that has more points than can be seen.
Curve thinned(const Curve& curve) {
  const size_t count = curve.steps.size();
  if (count <= kMostPoints) return curve;
  Curve out;
  for (size_t i = 0; i < kMostPoints; ++i) {
    const size_t begin = i * count / kMostPoints, end = (i + 1) * count / kMostPoints;
    double sum = 0;
    for (size_t j = begin; j < end; ++j) sum += curve.values[j];
    out.steps.push_back(curve.steps[end - 1]);
    out.values.push_back(sum / static_cast<double>(end - begin));
  }
  return out;
}

Series series(const Curve& curve, std::string name, int color) {
  Curve shown = thinned(curve);
  return {.name = std::move(name),
          .x = std::move(shown.steps),
          .y = std::move(shown.values),
          .color = color};
}

const Curve& training_loss(const RunRecord& run) {
  const Curve& mean = run.curve("mean_loss");
  return mean.steps.empty() ? run.curve("loss") : mean;
}

// A plot of half the width has room for the names of this many runs; of more, the plots of losses
// say which colour is whose.
constexpr size_t kMostInSmallLegend = 4;

// The steps in which guides may take part, where all runs that have them agree.
void shade_guided(PlotSpec& plot, const std::vector<RunRecord>& runs) {
  std::set<int64_t> ends;
  for (const RunRecord& run : runs) {
    if (!run.starts.empty() && run.starts.back().guided_steps > 0)
      ends.insert(run.starts.back().guided_steps);
  }
  if (ends.size() != 1) return;
  plot.shades.push_back({0, static_cast<double>(*ends.begin()), "guided"});
}

// One metric of all runs.
PlotSpec metric_plot(const std::vector<RunRecord>& runs, const std::string& metric,
                     const std::string& title, const std::string& unit) {
  PlotSpec plot;
  plot.title = title;
  plot.x_label = "optimizer step";
  plot.y_label = unit;
  plot.colors = static_cast<int64_t>(runs.size());
  plot.height = 300;
  plot.half_width = true;
  std::vector<size_t> owners;  // of the series
  for (size_t i = 0; i < runs.size(); ++i) {
    const Curve& curve = runs[i].curve(metric);
    if (curve.steps.empty()) continue;
    plot.series.push_back(series(curve, runs[i].name, static_cast<int>(i)));
    plot.series.back().in_legend = runs.size() > 1 && runs.size() <= kMostInSmallLegend;
    owners.push_back(i);
  }
  add_other_axes(plot, runs, owners);
  shade_guided(plot, runs);
  return plot;
}

void add_metric(Page& page, const std::vector<RunRecord>& runs, const std::string& metric,
                const std::string& title, const std::string& unit, bool log_y = false) {
  PlotSpec plot = metric_plot(runs, metric, title, unit);
  if (plot.series.empty()) return;
  plot.log_y = log_y;
  plot.smoothing = true;
  page.plot(plot);
}

// From zero, or logarithmic where the runs' peaks are more than a decade apart.
void add_learning_rate(Page& page, const std::vector<RunRecord>& runs) {
  PlotSpec plot = metric_plot(runs, "learning_rate", "Learning rate", "");
  std::vector<double> peaks;
  for (const Series& s : plot.series) peaks.push_back(std::ranges::max(s.y));
  if (peaks.empty()) return;
  const auto [low, high] = std::ranges::minmax(peaks);
  plot.log_y = low > 0 && high > 10 * low;
  plot.y_from_zero = !plot.log_y;
  page.plot(plot);
}

std::vector<double> finite(const std::vector<double>& values) {
  std::vector<double> out;
  std::ranges::copy_if(values, std::back_inserter(out), [](double v) { return std::isfinite(v); });
  return out;
}

// A run that diverged would press all other curves flat: what lies far above where the curves start
// is left for a zoom. Some may have diverged before their first point, hence the median.
void look_at_starts(PlotSpec& plot) {
  std::vector<double> starts, all;
  for (const Series& s : plot.series) {
    const std::vector<double> values = finite(s.y);
    if (values.empty()) continue;
    starts.push_back(values.front());
    all.insert(all.end(), values.begin(), values.end());
  }
  if (all.empty()) return;
  std::ranges::sort(starts);
  const double median = starts[(starts.size() - 1) / 2];
  const auto far = [&](double start) { return start > 2 * median; };
  const double start = *std::ranges::prev(std::ranges::find_if(starts, far));
  const auto [bottom, top] = std::ranges::minmax(all);
  const double seen = start + 0.5 * (start - bottom);
  if (top > seen && seen > bottom) plot.y_range = {bottom - 0.05 * (seen - bottom), seen};
}

// Training and validation loss of one run.
void add_loss(Page& page, const std::vector<RunRecord>& runs) {
  const RunRecord& run = runs.front();
  PlotSpec plot{.title = "Loss", .x_label = "optimizer step", .y_label = "loss (nats per token)"};
  plot.smoothing = true;
  plot.series.push_back(series(training_loss(run), "training", 0));
  plot.series.push_back(series(run.curve("validation_loss"), "validation", 1));
  plot.series.back().mode = SeriesMode::kLinesMarkers;
  add_other_axes(plot, runs, {0, 0});
  shade_guided(plot, runs);
  look_at_starts(plot);
  page.plot(plot);
}

// Of several runs: a plot for each.
void add_losses(Page& page, const std::vector<RunRecord>& runs) {
  PlotSpec training{
      .title = "Training loss", .x_label = "optimizer step", .y_label = "loss (nats per token)"};
  training.smoothing = true;
  PlotSpec validation{
      .title = "Validation loss", .x_label = "optimizer step", .y_label = "loss (nats per token)"};
  std::vector<size_t> owners;  // of the series
  for (size_t i = 0; i < runs.size(); ++i) {
    const int color = static_cast<int>(i);
    training.series.push_back(series(training_loss(runs[i]), runs[i].name, color));
    validation.series.push_back(series(runs[i].curve("validation_loss"), runs[i].name, color));
    validation.series.back().mode = SeriesMode::kLinesMarkers;
    owners.push_back(i);
  }
  for (PlotSpec* plot : {&training, &validation}) {
    add_other_axes(*plot, runs, owners);
    shade_guided(*plot, runs);
    look_at_starts(*plot);
  }
  page.plot(training);
  page.plot(validation);
}

// What a newer program, or a kind, may write beside the metrics that have a place of their own.
void add_other_metrics(Page& page, const std::vector<RunRecord>& runs) {
  static const std::set<std::string> placed = {"loss",
                                               "mean_loss",
                                               "perplexity",
                                               "validation_loss",
                                               "grad_norm",
                                               "learning_rate",
                                               "step_ms",
                                               "validation_perplexity",
                                               "memory_bytes",
                                               "tokens_per_second",
                                               "validation_accuracy",
                                               "tokens",
                                               "mfu",
                                               "time",
                                               "step_flops"};
  std::set<std::string> others;
  for (const RunRecord& run : runs) {
    for (const auto& [name, curve] : run.metrics) {
      if (!placed.contains(name)) others.insert(name);
    }
  }
  for (const std::string& name : others) add_metric(page, runs, name, name, "");
}

}  // namespace

void make_names_unique(std::vector<RunRecord>& runs) {
  std::map<std::string, int> uses;
  for (const RunRecord& run : runs) ++uses[run.name];
  for (RunRecord& run : runs) {
    if (uses[run.name] > 1) run.name = run.folder.lexically_normal().string();
  }
}

void add_final_figures(Page& page, const std::vector<RunRecord>& runs) {
  Table table({{"run"},
               {"step", Align::kRight},
               {"training loss", Align::kRight},
               {"validation loss", Align::kRight},
               {"lowest", Align::kRight},
               {"perplexity", Align::kRight},
               {"accuracy", Align::kRight},
               {"tokens", Align::kRight},
               {"tokens/s", Align::kRight},
               {"memory", Align::kRight}});
  const auto or_dash = [](double value, auto format) {
    return std::isfinite(value) ? format(value) : std::string("-");
  };
  for (const RunRecord& run : runs) {
    const Curve& validation = run.curve("validation_loss");
    table.add_row({run.name, format_integer(std::max<int64_t>(0, run.last_step())),
                   format_fixed(training_loss(run).last(), 4), format_fixed(validation.last(), 4),
                   format_fixed(validation.lowest(), 4),
                   format_fixed(run.curve("validation_perplexity").last(), 2),
                   format_percent(run.curve("validation_accuracy").last()),
                   or_dash(run.curve("tokens").last(), format_count),
                   or_dash(run.curve("tokens_per_second").last(), format_count),
                   or_dash(run.curve("memory_bytes").last(), format_bytes)});
  }
  page.table(table);
}

void add_curves(Page& page, const std::vector<RunRecord>& runs) {
  if (runs.size() == 1) {
    add_loss(page, runs);
  } else {
    add_losses(page, runs);
  }
  add_learning_rate(page, runs);
  add_metric(page, runs, "grad_norm", "Gradient norm before clipping", "", /*log_y=*/true);
  add_metric(page, runs, "validation_accuracy", "Accuracy on the validation split", "fraction");
  add_metric(page, runs, "tokens_per_second", "Speed", "tokens per second");
  add_other_metrics(page, runs);
}

Page run_page(const std::vector<RunRecord>& runs) {
  const bool one = runs.size() == 1;
  Page page(one ? fmt::format("Run {}", runs.front().name) : fmt::format("{} runs", runs.size()),
            one ? runs.front().folder.string() : "");
  add_head(page, runs);
  page.heading("Final figures");
  add_final_figures(page, runs);
  if (!one) {
    page.heading("What differs");
    add_setting_differences(page, runs);
  }
  add_evaluations(page, runs);
  page.heading("Curves");
  add_curves(page, runs);
  add_transforms(page, runs);
  add_energy(page, runs);
  add_ranges(page, runs);
  add_samples(page, runs);
  add_settings(page, runs);
  return page;
}

std::string write_run_report(const std::filesystem::path& run_folder) {
  const std::filesystem::path path = run_folder / "report.html";
  try {
    run_page({read_run(run_folder)}).write(path);
    return path.string();
  } catch (const std::exception& error) {
    log_warning("no report was written: {}", error.what());
    return "";
  }
}

}  // namespace refract
