// The study of `refract interpolate`: losses on the straight path between two models, or on a grid
// in the plane through three.
#pragma once
#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <vector>

#include "studies/alignment.h"
#include "studies/path_output.h"
#include "studies/plane_output.h"

namespace refract {

// Texts take the words that the options of the command take; errors name those options.
struct InterpolateStudy {
  std::vector<std::string> models;  // as load_model() takes them: A, B and, for a plane, C
  std::vector<std::string> overrides;
  std::vector<std::string> data;  // another corpus; empty: the splits of A's own
  std::string splits = "train,val", batches = "all";
  int64_t alphas = 30;         // points on the path
  int64_t plane = 0;           // points on each side of the grid; 0: a path
  std::string align = "none";  // or AlignWords::by
  AlignWords maps;             // the other words of alignment
  std::string buffers = "interpolate", engine = "auto", products = "auto";
  std::string out = "interpolation";  // folder for the files
};

struct InterpolateResult {
  std::vector<std::string> folders;  // of the models
  PathResult path;                   // without a plane
  std::optional<PathResult> before;  // the path of the same models before they are aligned
  std::optional<PlaneResult> plane;
};

// Evaluates all models with A's settings and writes path.json, path.csv and report.html (of a plane
// what write_plane() writes). Fails (usage), before anything is computed, for options that are
// wrong, for models of different architectures and for an `out` that can't be written.
InterpolateResult interpolate_models(const InterpolateStudy& study);

// path_json() with "a", "b", "batches", "buffers", "align", "seconds" and, where they are aligned,
// "before_alignment": path_json(); or plane_json().
nlohmann::json interpolate_json(const InterpolateStudy& study, const InterpolateResult& result);

}  // namespace refract
