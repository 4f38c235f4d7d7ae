#include "report/run_details.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <set>

#include "report/run/range_map.h"
#include "report/run_report.h"

namespace refract {
namespace {

using Ranges = std::vector<const RangeTrack*>;

std::string headed(const std::vector<RunRecord>& runs, const RunRecord& run,
                   const std::string& text) {
  return runs.size() == 1 ? text : run.name + ": " + text;
}

void add_transform_table(Page& page, const RunRecord& run) {
  Table table({{"kind"},
               {"rule"},
               {"layers", Align::kRight},
               {"parameters as dense", Align::kRight},
               {"parameters", Align::kRight}});
  for (const TransformRow& row : run.transforms) {
    if (row.modules == 0) continue;
    table.add_row({row.kind.empty() ? "left alone" : row.kind, row.match,
                   format_integer(row.modules), format_integer(row.dense_parameters),
                   format_integer(row.parameters)});
  }
  page.table(table);
}

// "model.layers.11.mlp.up_proj" -> "11.mlp.up_proj".
std::string short_module(const std::string& module) {
  constexpr std::string_view prefix = "model.layers.";
  return module.starts_with(prefix) ? module.substr(prefix.size()) : module;
}

double extent(double low, double high) { return std::max(std::abs(low), std::abs(high)); }

// The larger end of each module's range (rows) over the checkpoints (columns).
MatrixSpec range_matrix(const std::string& role, const Ranges& tracks) {
  std::set<double> steps;
  for (const RangeTrack* track : tracks) steps.insert(track->steps.begin(), track->steps.end());
  MatrixSpec matrix{.title = fmt::format("{}: larger end of the range", role),
                    .column_label = "checkpoint at step",
                    .value_label = "max(|low|, |high|)",
                    .log_colors = true};
  matrix.show_values = steps.size() <= 12 && tracks.size() <= 64;
  for (const double step : steps) {
    matrix.columns.push_back(format_integer(static_cast<int64_t>(step)));
  }
  for (const RangeTrack* track : tracks) {
    matrix.rows.push_back(short_module(track->module));
    std::vector<double> row(steps.size(), std::numeric_limits<double>::quiet_NaN());
    for (size_t i = 0; i < track->steps.size(); ++i) {
      const auto column = std::distance(steps.begin(), steps.find(track->steps[i]));
      row[static_cast<size_t>(column)] = extent(track->low[i], track->high[i]);
    }
    matrix.values.push_back(std::move(row));
  }
  matrix.height = static_cast<int>(std::min<size_t>(1400, 130 + 22 * tracks.size()));
  return matrix;
}

void add_range_table(Page& page, const RunRecord& run) {
  Table table({{"module"},
               {"range"},
               {"low", Align::kRight},
               {"high", Align::kRight},
               {"at step", Align::kRight}});
  for (const RangeTrack& track : run.ranges) {
    table.add_row({track.module, track.role, format_number(track.low.back(), 5),
                   format_number(track.high.back(), 5),
                   format_integer(static_cast<int64_t>(track.steps.back()))});
  }
  page.begin_fold("All ranges of the newest checkpoint");
  page.table(table);
  page.end_fold();
}

std::string listing(const RunRecord& run) {
  std::string out;
  for (const auto& [key, value] : run.settings) out += fmt::format("{} = {}\n", key, value);
  return out;
}

}  // namespace

void add_transforms(Page& page, const std::vector<RunRecord>& runs) {
  bool first = true;
  for (const RunRecord& run : runs) {
    if (run.transforms.empty()) continue;
    if (first) page.heading("Transforms");
    first = false;
    if (runs.size() > 1) page.subheading(run.name);
    add_transform_table(page, run);
  }
}

void add_ranges(Page& page, const std::vector<RunRecord>& runs) {
  bool first = true;
  for (const RunRecord& run : runs) {
    if (run.ranges.empty()) continue;
    if (first) page.heading("Ranges");
    first = false;
    if (runs.size() > 1) page.subheading(run.name);
    std::map<std::string, Ranges> by_role;
    for (const RangeTrack& track : run.ranges) by_role[track.role].push_back(&track);
    page.matrix(range_map(run.ranges));
    page.begin_fold("The ranges over the checkpoints");
    for (const auto& [role, tracks] : by_role) page.matrix(range_matrix(role, tracks));
    page.end_fold();
    add_range_table(page, run);
  }
}

void add_samples(Page& page, const std::vector<RunRecord>& runs) {
  bool first = true;
  for (const RunRecord& run : runs) {
    if (run.samples.empty()) continue;
    if (first) page.heading("Samples");
    first = false;
    const int64_t last = run.samples.back().step;
    const auto show = [&](bool newest) {
      for (const Sample& sample : run.samples) {
        if ((sample.step == last) != newest) continue;
        page.subheading(headed(runs, run, fmt::format("step {}", format_integer(sample.step))));
        page.preformatted(sample.text);
      }
    };
    show(true);
    if (run.samples.front().step == last) continue;
    page.begin_fold(headed(runs, run, "earlier samples"));
    show(false);
    page.end_fold();
  }
}

void add_setting_differences(Page& page, const std::vector<RunRecord>& runs) {
  std::map<std::string, std::vector<std::string>> values;  // key -> one value a run, "-": unset
  for (size_t i = 0; i < runs.size(); ++i) {
    for (const auto& [key, value] : runs[i].settings) {
      values.try_emplace(key, runs.size(), "-").first->second[i] = value;
    }
  }
  std::vector<std::string> keys;
  for (const auto& [key, row] : values) {
    const bool same = std::ranges::all_of(row, [&](const auto& value) { return value == row[0]; });
    if (!same && key != "run.dir") keys.push_back(key);
  }
  if (keys.empty()) {
    page.paragraph("The runs have the same settings, but for their folders.");
    return;
  }
  std::vector<Table::Column> columns = {{"run"}};
  for (const std::string& key : keys) columns.push_back({key});
  Table table(columns);
  for (size_t i = 0; i < runs.size(); ++i) {
    std::vector<std::string> cells = {runs[i].name};
    for (const std::string& key : keys) cells.push_back(values[key][i]);
    table.add_row(std::move(cells));
  }
  page.table(table);
}

void add_settings(Page& page, const std::vector<RunRecord>& runs) {
  page.heading("Settings");
  for (const RunRecord& run : runs) {
    page.begin_fold(headed(runs, run, "all settings"));
    page.preformatted(listing(run));
    page.end_fold();
  }
}

}  // namespace refract
