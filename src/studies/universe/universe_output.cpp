#include "studies/universe/universe_output.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "core/files.h"
#include "report/page/page.h"
#include "report/table.h"
#include "studies/path_output.h"

namespace refract {
namespace {

using nlohmann::json;
using Matrix = std::vector<std::vector<double>>;

json matrix_json(const Matrix& matrix) {
  json rows = json::array();
  for (const auto& row : matrix) {
    rows.push_back(json::array());
    for (const double value : row) rows.back().push_back(finite_or_null(value));
  }
  return rows;
}

// Over all pairs.
double mean_barrier(const Matrix& matrix) {
  double sum = 0;
  for (const auto& row : matrix) {
    for (const double value : row) sum += value;
  }
  const auto n = static_cast<double>(matrix.size());
  return sum / (n * (n - 1));
}

double largest_barrier(const Matrix& matrix) {
  double most = 0;
  for (const auto& row : matrix) most = std::max(most, *std::max_element(row.begin(), row.end()));
  return most;
}

std::vector<std::string> numbers_of_models(const UniverseResult& result) {
  std::vector<std::string> names;
  for (size_t i = 0; i < result.folders.size(); ++i) names.push_back(std::to_string(i + 1));
  return names;
}

Table model_table(const UniverseResult& result) {
  Table table({{"model"}, {"loss", Align::kRight}, {"distance from the mean", Align::kRight}});
  for (size_t i = 0; i < result.folders.size(); ++i) {
    table.add_row({fmt::format("{}  {}", i + 1, result.folders[i]),
                   format_fixed(result.models[i].loss, 4),
                   format_number(result.report.distances[i])});
  }
  return table;
}

Table frame_table(const UniverseResult& result) {
  Table table({{""}, {"before", Align::kRight}, {"in one frame", Align::kRight}});
  table.add_row({"mean barrier", format_fixed(mean_barrier(result.before), 4),
                 format_fixed(mean_barrier(result.after), 4)});
  table.add_row({"largest barrier", format_fixed(largest_barrier(result.before), 4),
                 format_fixed(largest_barrier(result.after), 4)});
  table.add_row({"loss of the barycentre", format_fixed(result.mean_before.loss, 4),
                 format_fixed(result.mean_after.loss, 4)});
  table.add_row({"distance from the mean", format_number(result.report.spread_before),
                 format_number(result.report.spread_after)});
  return table;
}

Table barrier_table(const UniverseResult& result, const Matrix& matrix) {
  std::vector<Table::Column> columns = {{"barrier"}};
  for (const std::string& name : numbers_of_models(result))
    columns.push_back({name, Align::kRight});
  Table table(columns);
  for (size_t i = 0; i < matrix.size(); ++i) {
    std::vector<std::string> row = {std::to_string(i + 1)};
    for (const double value : matrix[i]) row.push_back(format_fixed(value, 4));
    table.add_row(row);
  }
  return table;
}

MatrixSpec heat_map(const UniverseResult& result, const std::string& title, const Matrix& matrix) {
  MatrixSpec map;
  map.title = title;
  map.value_label = "nats per token";
  map.rows = map.columns = numbers_of_models(result);
  map.values = matrix;
  map.half_width = true;
  return map;
}

}  // namespace

json universe_json(const UniverseResult& result) {
  json losses = json::array();
  for (const Evaluation& model : result.models) losses.push_back(finite_or_null(model.loss));
  return {
      {"models", result.folders},
      {"split", result.split},
      {"tokens", result.mean_after.tokens},
      {"rounds", result.report.rounds},
      {"spread_before", result.report.spread_before},
      {"spread_after", result.report.spread_after},
      {"distances", result.report.distances},
      {"losses", losses},
      {"barycentre",
       {{"before", finite_or_null(result.mean_before.loss)},
        {"after", finite_or_null(result.mean_after.loss)}}},
      {"barriers", {{"before", matrix_json(result.before)}, {"after", matrix_json(result.after)}}}};
}

std::string universe_text(const UniverseResult& result) {
  return fmt::format("{}\n{}\nbefore, nats on {}\n{}\nin one frame\n{}", model_table(result).str(),
                     frame_table(result).str(), result.split,
                     barrier_table(result, result.before).str(),
                     barrier_table(result, result.after).str());
}

void write_universe(const UniverseResult& result, const std::filesystem::path& folder) {
  write_file_atomically(folder / "universe.json", universe_json(result).dump(1) + "\n");
  Page page("A common frame for models",
            fmt::format("{} models, loss on {}", result.folders.size(), result.split));
  page.table(model_table(result));
  page.table(frame_table(result));
  page.paragraph(
      "Barrier: the most by which the loss on the straight path between two models rises above the "
      "line between its ends. Barycentre: the mean of all weights.");
  page.matrix(heat_map(result, "Barriers before", result.before));
  page.matrix(heat_map(result, "Barriers in one frame", result.after));
  page.write(folder / "report.html");
}

}  // namespace refract
