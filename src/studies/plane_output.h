// Losses in the plane through three models as files and pictures.
#pragma once
#include <array>
#include <filesystem>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "train/evaluate.h"

namespace refract {

struct PlaneSplit {
  std::string name;
  // The three models, then the grid, row by row (y) and in each by x.
  std::vector<Evaluation> points;
};

struct PlaneResult {
  std::vector<std::string> names;                  // of the three models
  std::array<std::array<double, 2>, 3> corners{};  // their (x, y)
  std::vector<double> x, y;                        // of the grid
  std::vector<PlaneSplit> splits;
};

// {"models", "corners", "x", "y", "splits": {name: {"corners": [loss], "loss": [[...]]}}}.
nlohmann::json plane_json(const PlaneResult& result);
std::string plane_text(const PlaneResult& result);
// plane.json, plane.csv (x,y,split,loss,error) and report.html.
void write_plane(const PlaneResult& result, const std::filesystem::path& folder);

}  // namespace refract
