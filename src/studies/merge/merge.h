// The study of `refract merge`: one model made of several that have the same architecture.
#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <vector>

#include "runs/loaded_model.h"
#include "studies/merge/merge_methods.h"

namespace refract {

// Errors name the options of the command.
struct MergeStudy {
  std::vector<std::string> models;     // as load_model() takes them; dense
  std::vector<std::string> overrides;  // of the evaluations
  std::string base;                    // of task vectors
  // Of `method` also greedy_soup: models by rising loss, each added to the mean where that does not
  // raise its loss (Wortsman et al., 2022).
  MergeSettings settings;
  std::optional<at::ScalarType> dtype;  // of the file; else each tensor's own in the first model
  EvaluationRequest evaluation;         // of points and of greedy_soup
  // The loss at so many values of the method's coefficient, from 0 on: the second model's weight of
  // linear, t of slerp, lambda of the others; 0: none.
  int64_t points = 0;
  bool best = false;  // of the points the one with the least loss is written
  std::string out;
};

struct MergePoint {
  double coefficient = 0, loss = 0;  // nats per token
};

struct MergeResult {
  std::string coefficient;         // "weight", "t" or "lambda"; empty: the method has none
  double written = 0;              // its value
  std::vector<MergePoint> points;  // rising
  std::vector<double> losses;      // of greedy_soup: of each model
  std::vector<size_t> chosen;      // of greedy_soup: which models, in the order they were added
};

// Writes the merged model folder, with config.json, tokenizer and side files of the first model,
// and merge.json beside them. One tensor of each model is in memory at a time. Fails (usage) before
// anything is written for models of different architectures, for transformed ones, and for options
// that do not go together.
MergeResult merge_models(const MergeStudy& study);

nlohmann::json merge_json(const MergeStudy& study, const MergeResult& result);
// Tables and a plot for a terminal.
std::string merge_text(const MergeStudy& study, const MergeResult& result);

}  // namespace refract
