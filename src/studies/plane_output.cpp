#include "studies/plane_output.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>
#include <utility>

#include "core/files.h"
#include "report/page/page.h"
#include "report/table.h"
#include "studies/path_output.h"

namespace refract {
namespace {

using nlohmann::json;
constexpr size_t kModels = 3;
constexpr const char* kLetters[kModels] = {"A", "B", "C"};

std::vector<std::vector<double>> grid(const PlaneResult& result, const PlaneSplit& split) {
  std::vector<std::vector<double>> rows(result.y.size());
  size_t at = kModels;
  for (auto& row : rows) {
    for (size_t i = 0; i < result.x.size(); ++i) row.push_back(split.points[at++].loss);
  }
  return rows;
}

std::string plane_csv(const PlaneResult& result) {
  std::string out = "x,y,split,loss,error\n";
  for (const PlaneSplit& split : result.splits) {
    size_t at = kModels;
    for (double y : result.y) {
      for (double x : result.x) {
        const Evaluation& point = split.points[at++];
        out += fmt::format("{},{},{},{},{}\n", x, y, split.name, point.loss, 1 - point.accuracy);
      }
    }
  }
  return out;
}

Series models_series(const PlaneResult& result) {
  Series series{.name = "models"};
  series.mode = SeriesMode::kMarkers;
  for (size_t i = 0; i < kModels; ++i) {
    series.x.push_back(result.corners[i][0]);
    series.y.push_back(result.corners[i][1]);
    series.labels.emplace_back(kLetters[i]);
  }
  series.named = true;
  return series;
}

// Of all splits; (0, 0), which means each grid's own, where there is only one.
std::pair<double, double> loss_range(const PlaneResult& result) {
  if (result.splits.size() < 2) return {0, 0};
  double low = std::numeric_limits<double>::infinity(), high = -low;
  for (const PlaneSplit& split : result.splits) {
    for (size_t i = kModels; i < split.points.size(); ++i) {
      const double loss = split.points[i].loss;
      if (std::isfinite(loss)) low = std::min(low, loss), high = std::max(high, loss);
    }
  }
  return low < high ? std::pair(low, high) : std::pair(0.0, 0.0);
}

Table corner_table(const PlaneResult& result) {
  std::vector<Table::Column> columns = {{"model"}, {"x", Align::kRight}, {"y", Align::kRight}};
  for (const PlaneSplit& split : result.splits)
    columns.push_back({"loss on " + split.name, Align::kRight});
  Table table(columns);
  for (size_t i = 0; i < kModels; ++i) {
    std::vector<std::string> row = {std::string(kLetters[i]) + "  " + result.names[i],
                                    format_number(result.corners[i][0]),
                                    format_number(result.corners[i][1])};
    for (const PlaneSplit& split : result.splits)
      row.push_back(format_fixed(split.points[i].loss, 4));
    table.add_row(row);
  }
  return table;
}

}  // namespace

json plane_json(const PlaneResult& result) {
  json out = {{"models", result.names},
              {"corners", result.corners},
              {"x", result.x},
              {"y", result.y},
              {"splits", json::object()}};
  for (const PlaneSplit& split : result.splits) {
    json corners = json::array(), losses = json::array();
    for (size_t i = 0; i < kModels; ++i) corners.push_back(finite_or_null(split.points[i].loss));
    for (const auto& row : grid(result, split)) {
      losses.push_back(json::array());
      for (double loss : row) losses.back().push_back(finite_or_null(loss));
    }
    out["splits"][split.name] = {
        {"tokens", split.points[0].tokens}, {"corners", corners}, {"loss", losses}};
  }
  return out;
}

std::string plane_text(const PlaneResult& result) {
  std::string text = corner_table(result).str();
  for (const PlaneSplit& split : result.splits) {
    const auto by_loss = [](const Evaluation& a, const Evaluation& b) { return a.loss < b.loss; };
    const auto [least, most] =
        std::minmax_element(split.points.begin() + kModels, split.points.end(), by_loss);
    text +=
        fmt::format("{}: from {:.4f} to {:.4f} on the grid\n", split.name, least->loss, most->loss);
  }
  return text;
}

void write_plane(const PlaneResult& result, const std::filesystem::path& folder) {
  std::filesystem::create_directories(folder);
  write_file_atomically(folder / "plane.json", plane_json(result).dump(1) + "\n");
  write_file_atomically(folder / "plane.csv", plane_csv(result));
  Page page(
      "The plane through three models",
      fmt::format("{} x {} points, distances in weight space", result.x.size(), result.y.size()));
  page.table(corner_table(result));
  const std::pair<double, double> range = loss_range(result);
  for (const PlaneSplit& split : result.splits) {
    ContourSpec contour;
    contour.title = "Loss on " + split.name;
    contour.x_label = "along B - A";
    contour.y_label = "across";
    contour.z_label = "nats per token";
    contour.x = result.x;
    contour.y = result.y;
    contour.z = grid(result, split);
    contour.z_range = range;  // one scale: the splits are compared
    contour.series = {models_series(result)};
    page.contour(contour);
  }
  page.write(folder / "report.html");
}

}  // namespace refract
