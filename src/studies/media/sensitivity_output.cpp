#include "studies/media/sensitivity_output.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <utility>

#include "core/files.h"
#include "report/json_number.h"
#include "report/page/page.h"

namespace refract {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

std::vector<SensitivityRow> ranked(const SensitivityResult& result) {
  std::vector<SensitivityRow> rows = result.rows;
  std::stable_sort(rows.begin(), rows.end(),
                   [](const auto& a, const auto& b) { return a.only > b.only; });
  return rows;
}

std::string csv(const SensitivityResult& result) {
  std::string text = "group,name,loss_only_there,loss_everywhere_but_there\n";
  for (const SensitivityRow& row : result.rows) {
    text += fmt::format("{},{},{},{}\n", row.group, row.name, row.only,
                        std::isfinite(row.except) ? fmt::format("{}", row.except) : "");
  }
  return text;
}

// Layers x modules: nats that the medium costs in one module alone. Empty without modules.
MatrixSpec heat_map(const SensitivityResult& result) {
  MatrixSpec map;
  map.title = "What the medium costs in one module alone (nats)";
  map.row_label = "layer";
  map.column_label = "module";
  map.value_label = "nats";
  for (const SensitivityRow& row : result.rows) {
    if (row.group != "modules") continue;
    const std::string start = "model.layers.";
    const size_t dot = row.name.find('.', start.size());
    const std::string layer = row.name.substr(start.size(), dot - start.size());
    const std::string module = row.name.substr(row.name.rfind('.') + 1);
    if (map.rows.empty() || map.rows.back() != layer) {
      map.rows.push_back(layer);
      map.values.emplace_back(map.columns.size(), std::nan(""));
    }
    auto column = std::find(map.columns.begin(), map.columns.end(), module);
    if (column == map.columns.end()) {
      map.columns.push_back(module);
      for (auto& values : map.values) values.push_back(std::nan(""));
      column = map.columns.end() - 1;
    }
    map.values.back()[static_cast<size_t>(column - map.columns.begin())] = row.only - result.dense;
  }
  return map;
}

PlotSpec bars(const SensitivityResult& result, const std::string& group) {
  PlotSpec plot;
  plot.title = "The medium in one of the " + group + " alone";
  plot.x_label = group;
  plot.y_label = "loss above the dense model (nats)";
  Series only;
  only.name = "in one alone";
  only.mode = SeriesMode::kBars;
  for (const SensitivityRow& row : result.rows) {
    if (row.group != group) continue;
    only.x.push_back(static_cast<double>(only.x.size()));
    only.y.push_back(row.only - result.dense);
    plot.x_names.push_back(row.name);
  }
  plot.series.push_back(std::move(only));
  plot.half_width = true;
  return plot;
}

// What the proposal is better than.
Table uniform_table(const DigitalProposal& proposal) {
  Table table({{"chosen"},
               {"modules", Align::kRight},
               {"digital", Align::kRight},
               {"loss", Align::kRight}});
  const auto add = [&](const DigitalOutcome& outcome) {
    table.add_row({outcome.name, format_integer(static_cast<int64_t>(outcome.modules.size())),
                   format_percent(outcome.share, 2), format_fixed(outcome.loss, 4)});
  };
  add(proposal.chosen);
  for (const DigitalOutcome& other : proposal.uniform) add(other);
  return table;
}

json outcome_json(const DigitalOutcome& outcome) {
  return {{"chosen", outcome.name},
          {"modules", outcome.modules},
          {"share", outcome.share},
          {"loss", json_number(outcome.loss)}};
}

}  // namespace

Table culprit_table(const SensitivityResult& result, size_t most) {
  Table table({{"where"},
               {""},
               {"loss only there", Align::kRight},
               {"costs", Align::kRight},
               {"loss without it there", Align::kRight}});
  for (const SensitivityRow& row : ranked(result)) {
    if (most > 0 && table.rows() == most) break;
    table.add_row({row.group, row.name, format_fixed(row.only, 4),
                   format_fixed(row.only - result.dense, 4), format_fixed(row.except, 4)});
  }
  return table;
}

Table role_table(const SensitivityResult& result, size_t most) {
  Table table({{"module"},
               {"role"},
               {"SNR dB", Align::kRight},
               {"largest", Align::kRight},
               {"/ median", Align::kRight},
               {"channel", Align::kRight},
               {"levels in use", Align::kRight}});
  for (const RoleStatistics& role : result.roles) {
    if (most > 0 && table.rows() == most) break;
    table.add_row({role.module, role.role, format_fixed(role.snr_db, 1),
                   format_number(role.largest), format_number(role.ratio()),
                   format_integer(role.channel), format_percent(role.levels_in_use)});
  }
  return table;
}

std::string sensitivity_text(const SensitivityResult& result, const std::string& folder) {
  std::string text = fmt::format(
      "dense loss       {:.4f} nats per token ({} tokens)\nin the medium    {:.4f}\n\n{}\n{}",
      result.dense, result.tokens, result.medium, culprit_table(result, 15).str(),
      role_table(result, 10).str());
  for (const DigitalProposal& proposal : result.proposals) {
    const DigitalOutcome& chosen = proposal.chosen;
    text += fmt::format(
        "\n{} of the multiplications digital in {} modules, chosen {}: loss {:.4f}\n",
        format_percent(chosen.share, 2), chosen.modules.size(), chosen.name, chosen.loss);
    for (const std::string& module : chosen.modules) text += fmt::format("  {}\n", module);
    text += uniform_table(proposal).str();
  }
  return text +
         fmt::format("\nsensitivity.json, sensitivity.csv and report.html are in {}\n", folder);
}

void write_sensitivity(const SensitivityResult& result, const std::string& out) {
  const fs::path folder = out;
  write_file_atomically(folder / "sensitivity.json", sensitivity_json(result).dump(1) + "\n");
  write_file_atomically(folder / "sensitivity.csv", csv(result));
  for (const DigitalProposal& proposal : result.proposals) {
    write_file_atomically(folder / rules_file(proposal, result.proposals.size() == 1),
                          proposal.rules);
  }
  Page page("Which part can't live in the medium",
            fmt::format("dense loss {:.4f}, with the medium everywhere {:.4f} nats ({} tokens)",
                        result.dense, result.medium, result.tokens));
  for (const char* group : {"types", "layers", "roles"}) {
    const PlotSpec plot = bars(result, group);
    if (!plot.x_names.empty()) page.plot(plot);
  }
  const MatrixSpec map = heat_map(result);
  if (!map.rows.empty()) page.matrix(map);
  page.heading("Culprits");
  page.table(culprit_table(result, 0));
  page.heading("Roles");
  page.table(role_table(result, 0));
  for (const DigitalProposal& proposal : result.proposals) {
    page.heading(fmt::format("{} of the multiplications digital: loss {:.4f}",
                             format_percent(proposal.chosen.share, 2), proposal.chosen.loss));
    page.table(uniform_table(proposal));
    page.preformatted(proposal.rules);
  }
  page.write(folder / "report.html");
}

json sensitivity_json(const SensitivityResult& result) {
  json rows = json::array(), roles = json::array(), proposals = json::array();
  for (const SensitivityRow& row : ranked(result)) {
    rows.push_back({{"by", row.group},
                    {"name", row.name},
                    {"only", json_number(row.only)},
                    {"cost", json_number(row.only - result.dense)},
                    {"except", json_number(row.except)}});
  }
  for (const RoleStatistics& role : result.roles) {
    roles.push_back({{"module", role.module},
                     {"role", role.role},
                     {"largest", json_number(role.largest)},
                     {"median", json_number(role.median)},
                     {"ratio", json_number(role.ratio())},
                     {"channel", role.channel},
                     {"row", role.row},
                     {"snr_db", json_number(role.snr_db)},
                     {"levels_in_use", json_number(role.levels_in_use)}});
  }
  for (const DigitalProposal& proposal : result.proposals) {
    json uniform = json::array();
    for (const DigitalOutcome& other : proposal.uniform) uniform.push_back(outcome_json(other));
    json one = outcome_json(proposal.chosen);
    one["asked"] = proposal.asked;
    one["rules"] = proposal.rules;
    one["uniform"] = std::move(uniform);
    proposals.push_back(std::move(one));
  }
  return {{"dense", json_number(result.dense)},
          {"medium", json_number(result.medium)},
          {"tokens", result.tokens},
          {"seconds", result.seconds},
          {"culprits", std::move(rows)},
          {"roles", std::move(roles)},
          {"proposals", std::move(proposals)}};
}

}  // namespace refract
