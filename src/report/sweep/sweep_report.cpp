#include "report/sweep/sweep_report.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <map>
#include <nlohmann/json.hpp>
#include <tuple>

#include "report/json_number.h"
#include "report/run_report.h"

namespace refract {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

RunRecord record_of(const fs::path& folder, const SweepRun& run) {
  RunRecord record;
  if (is_run(folder / run.name)) record = read_run(folder / run.name);
  record.folder = folder / run.name;
  record.name = run.name;
  return record;
}

// Finished runs by loss; then those that diverged, failed or have not ended. NaN is last.
auto rank(const SweepRow& row) {
  const double loss = row.final_loss();
  const bool finished = row.run.state == SweepState::kFinished;
  return std::tuple(!finished, !std::isfinite(loss), std::isfinite(loss) ? loss : 0.0);
}

std::string csv_field(const std::string& text) {
  if (text.find_first_of(",\"\r\n") == std::string::npos) return text;
  std::string out = "\"";
  for (const char c : text) {
    if (c == '"') out += '"';
    out += c;
  }
  return out + '"';
}

std::string csv_number(double value) {
  return std::isfinite(value) ? fmt::format("{}", value) : "";
}

// Figures that table.csv and table.json have beside the three losses: name, metric.
constexpr std::array<std::pair<const char*, const char*>, 4> kFigures = {
    {{"validation_perplexity", "validation_perplexity"},
     {"validation_accuracy", "validation_accuracy"},
     {"tokens", "tokens"},
     {"tokens_per_second", "tokens_per_second"}}};

}  // namespace

double SweepRow::final_loss() const {
  return record.curve("validation_loss").steps.empty() ? training_loss : validation_loss;
}

SweepOutcome read_outcome(const fs::path& folder, const SweepRecord& sweep) {
  SweepOutcome outcome;
  outcome.sweep = sweep;
  for (const SweepRun& run : sweep.runs) {
    SweepRow row{.run = run, .record = record_of(folder, run)};
    row.training_loss = row.record.curve("mean_loss").last();
    row.validation_loss = row.record.curve("validation_loss").last();
    row.lowest_validation_loss = row.record.curve("validation_loss").lowest();
    outcome.rows.push_back(std::move(row));
  }
  std::ranges::stable_sort(outcome.rows,
                           [](const auto& a, const auto& b) { return rank(a) < rank(b); });
  return outcome;
}

std::vector<std::string> short_keys(const std::vector<std::string>& keys) {
  const auto last_part = [](const std::string& key) { return key.substr(key.rfind('.') + 1); };
  std::map<std::string, int> uses;
  for (const std::string& key : keys) ++uses[last_part(key)];
  std::vector<std::string> out;
  for (const std::string& key : keys) {
    out.push_back(uses[last_part(key)] == 1 ? last_part(key) : key);
  }
  return out;
}

Table outcome_rows(const SweepOutcome& outcome) {
  std::vector<Table::Column> columns;
  for (const std::string& key : short_keys(outcome.sweep.keys)) {
    columns.push_back({key, Align::kRight});
  }
  columns.insert(columns.end(), {{"state"},
                                 {"step", Align::kRight},
                                 {"training loss", Align::kRight},
                                 {"validation loss", Align::kRight},
                                 {"lowest", Align::kRight}});
  const bool reasons = std::ranges::any_of(
      outcome.rows, [](const SweepRow& row) { return !row.run.reason.empty(); });
  if (reasons) columns.push_back({"reason"});
  Table table(columns);
  for (const SweepRow& row : outcome.rows) {
    std::vector<std::string> cells = row.run.values;
    cells.insert(cells.end(),
                 {std::string(state_name(row.run.state)),
                  format_integer(std::max<int64_t>(0, row.record.last_step())),
                  format_fixed(row.training_loss, 4), format_fixed(row.validation_loss, 4),
                  format_fixed(row.lowest_validation_loss, 4)});
    if (reasons) cells.push_back(row.run.reason);
    table.add_row(std::move(cells));
  }
  return table;
}

std::string outcome_table(const SweepOutcome& outcome) { return outcome_rows(outcome).str(); }

std::string outcome_csv(const SweepOutcome& outcome) {
  std::string out = "run,state";
  for (const std::string& key : outcome.sweep.keys) out += "," + csv_field(key);
  out += ",step,training_loss,validation_loss,lowest_validation_loss";
  for (const auto& [name, metric] : kFigures) out += fmt::format(",{}", name);
  out += ",reason\r\n";
  for (const SweepRow& row : outcome.rows) {
    out += csv_field(row.run.name) + "," + std::string(state_name(row.run.state));
    for (const std::string& value : row.run.values) out += "," + csv_field(value);
    out += fmt::format(",{},{},{},{}", std::max<int64_t>(0, row.record.last_step()),
                       csv_number(row.training_loss), csv_number(row.validation_loss),
                       csv_number(row.lowest_validation_loss));
    for (const auto& [name, metric] : kFigures) {
      out += "," + csv_number(row.record.curve(metric).last());
    }
    out += "," + csv_field(row.run.reason) + "\r\n";
  }
  return out;
}

json outcome_json(const SweepOutcome& outcome) {
  json list = json::array();
  for (const SweepRow& row : outcome.rows) {
    json values = json::object();
    for (size_t i = 0; i < outcome.sweep.keys.size(); ++i) {
      values[outcome.sweep.keys[i]] = row.run.values[i];
    }
    json entry = {{"run", row.run.name},
                  {"folder", row.record.folder.string()},
                  {"state", state_name(row.run.state)},
                  {"reason", row.run.reason},
                  {"values", std::move(values)},
                  {"step", std::max<int64_t>(0, row.record.last_step())},
                  {"training_loss", json_number(row.training_loss)},
                  {"validation_loss", json_number(row.validation_loss)},
                  {"lowest_validation_loss", json_number(row.lowest_validation_loss)}};
    for (const auto& [name, metric] : kFigures) {
      entry[name] = json_number(row.record.curve(metric).last());
    }
    list.push_back(std::move(entry));
  }
  return list;
}

}  // namespace refract
