// The study of `refract universe`: several models in one common frame, their mean, and the barriers
// between all of them before and after.
#pragma once
#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "analysis/matching/universe.h"
#include "train/evaluate.h"

namespace refract {

// Texts take the words that the options of the command take; errors name those options.
struct UniverseStudy {
  std::vector<std::string> models;           // as load_model() takes them, at least two
  std::vector<std::string> overrides, data;  // data: another corpus; empty: a split of the first's
  std::string split = "val", batches = "20", residual = "permutation";
  int64_t alphas = 11;  // points on each path
  std::string out;      // folder to write: universe.json, report.html, barycentre/, aligned-1/, ...
};

struct UniverseResult {
  std::vector<std::string> folders;
  std::string split;
  UniverseReport report;
  std::vector<Evaluation> models;      // each one's own loss, which matching leaves alone
  Evaluation mean_before, mean_after;  // of the mean of all, without and in the common frame
  // Loss barriers in nats between all of them; the diagonal is 0.
  std::vector<std::vector<double>> before, after;
};

// Matches, measures and saves. Fails (usage) where two models are no points of one space, for
// models in a medium, and where `out` already holds something; the folder appears when it is whole.
UniverseResult match_and_save(const UniverseStudy& study);

}  // namespace refract
