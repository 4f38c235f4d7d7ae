// A path between two models as numbers, files and pictures.
#pragma once
#include <filesystem>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "analysis/barrier.h"
#include "analysis/weights.h"
#include "train/evaluate.h"

namespace refract {

class Page;

struct PathSplit {
  std::string name;                // "train", "val" or "data"
  std::vector<Evaluation> points;  // one an alpha
  std::vector<double> losses() const;
  std::vector<double> errors() const;  // 1 - top-1 accuracy
};

struct PathResult {
  std::vector<double> alphas;  // weight of A
  std::vector<PathSplit> splits;
  Geometry geometry;
  std::string engine;  // how the points between the ends were evaluated
  double seconds = 0;  // that the evaluation took; no part of path_json()

  Barrier loss_barrier(size_t split) const { return barrier_of(alphas, splits[split].losses()); }
  Barrier error_barrier(size_t split) const { return barrier_of(alphas, splits[split].errors()); }
};

// {"alphas", "distance", "cosine", "norm_a", "norm_b", "engine", "splits": {name: {"tokens",
// "loss", "perplexity", "error", "loss_barrier": {...}, "error_barrier": {...}}}}; what is not
// finite is null.
nlohmann::json path_json(const PathResult& result);

nlohmann::json barrier_json(const Barrier& barrier);
nlohmann::json finite_or_null(double value);

// alpha,split,loss,perplexity,error: a line a point.
std::string path_csv(const PathResult& result);
// The table of barriers and a plot of the losses; with the path that the same models have before
// they are aligned, where there is one.
std::string path_text(const PathResult& result, const PathResult* before = nullptr);
// The same as sections of a page.
void add_path(Page& page, const PathResult& result, const PathResult* before = nullptr);

}  // namespace refract
