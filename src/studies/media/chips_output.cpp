#include "studies/media/chips_output.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>
#include <string>
#include <utility>

#include "core/files.h"
#include "report/json_number.h"
#include "report/page/page.h"

namespace refract {
namespace {

using nlohmann::json;

std::pair<double, double> ends_of(const ChipsRow& row) {
  const auto [low, high] = std::minmax_element(row.losses.begin(), row.losses.end());
  return {*low, *high};
}

std::string csv(const ChipsResult& result) {
  std::string text = "time,seconds,chip,loss,perplexity\n";
  for (const ChipsRow& row : result.rows) {
    for (size_t i = 0; i < row.losses.size(); ++i) {
      text += fmt::format("{},{},{},{},{}\n", row.name, row.seconds,
                          result.first + static_cast<int64_t>(i), row.losses[i],
                          std::exp(row.losses[i]));
    }
  }
  return text;
}

PlotSpec plot_of(const ChipsResult& result) {
  PlotSpec plot;
  plot.title = "Loss as the devices age";
  plot.x_label = "seconds since programming";
  plot.y_label = "loss (nats)";
  plot.log_x = true;
  Series mean;
  mean.name = "mean of the chips, from the best to the worst";
  mean.mode = SeriesMode::kLinesMarkers;
  for (const ChipsRow& row : result.rows) {
    if (row.seconds <= 0) continue;  // has no place on a logarithmic axis
    const auto [low, high] = ends_of(row);
    mean.x.push_back(row.seconds);
    mean.y.push_back(row.mean());
    mean.low.push_back(low);
    mean.high.push_back(high);
    mean.labels.push_back(row.name);
  }
  plot.series.push_back(std::move(mean));
  plot.levels.push_back({result.ideal, "ideal devices"});
  return plot;
}

}  // namespace

Table chips_table(const ChipsResult& result) {
  Table table({{"after"},
               {"loss", Align::kRight},
               {"deviation", Align::kRight},
               {"best", Align::kRight},
               {"worst", Align::kRight},
               {"perplexity", Align::kRight},
               {"/ ideal", Align::kRight}});
  for (const ChipsRow& row : result.rows) {
    const auto [low, high] = ends_of(row);
    table.add_row({row.name, format_fixed(row.mean(), 4), format_fixed(row.deviation(), 4),
                   format_fixed(low, 4), format_fixed(high, 4), format_number(std::exp(row.mean())),
                   format_fixed(std::exp(row.mean() - result.ideal), 3)});
  }
  table.add_row({"ideal devices", format_fixed(result.ideal, 4), "", "", "",
                 format_number(std::exp(result.ideal)), "1.000"});
  return table;
}

json chips_json(const ChipsResult& result) {
  json rows = json::array();
  for (const ChipsRow& row : result.rows) {
    json losses = json::array();
    for (const double loss : row.losses) losses.push_back(json_number(loss));
    rows.push_back({{"time", row.name},
                    {"seconds", row.seconds},
                    {"loss", json_number(row.mean())},
                    {"deviation", json_number(row.deviation())},
                    {"perplexity", json_number(std::exp(row.mean()))},
                    {"losses", std::move(losses)}});
  }
  return {{"ideal", json_number(result.ideal)},
          {"tokens", result.tokens},
          {"first", result.first},
          {"rows", std::move(rows)},
          {"seconds", result.seconds}};
}

void write_chips(const ChipsResult& result, const std::filesystem::path& folder) {
  write_file_atomically(folder / "chips.json", chips_json(result).dump(1) + "\n");
  write_file_atomically(folder / "chips.csv", csv(result));
  Page page(
      "A model on memory devices",
      fmt::format("{} chips, {} tokens",
                  result.rows.empty() ? 0 : result.rows.front().losses.size(), result.tokens));
  page.plot(plot_of(result));
  page.table(chips_table(result));
  page.write(folder / "report.html");
}

}  // namespace refract
