// One row of `refract compare`: a model in a medium, before and after repair.
#pragma once
#include <cstdint>
#include <filesystem>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <vector>

#include "studies/compare/compare_plan.h"

namespace refract {

// What all rows share.
struct CompareRequest {
  std::string model;
  std::vector<std::string> overrides;
  std::vector<std::string> texts;  // each is a column of its own
  int64_t tokens = 0;              // of each text at most, in whole windows; 0: all
  std::string energy;              // a file for energy_constants(); empty: the program's own
  std::filesystem::path out;
};

// On one text.
struct TextFigures {
  std::string text;
  double loss = 0, accuracy = 0;
  int64_t tokens = 0;
};

struct RowFigures {
  std::vector<TextFigures> texts;
  double tokens_per_second = 0;
  double loss() const;  // the mean over texts
};

struct RowResult {
  std::string name;
  RowFigures before;
  std::optional<RowFigures> after;    // of a repair
  double joules = 0, digital = 0;     // of a token
  double beside = 0;                  // of `joules`, outside the medium
  std::vector<std::string> culprits;  // "model.layers.3.mlp.down_proj x: 0.7 dB", the worst first
};

nlohmann::json row_json(const RowResult& row);

// What the row's folder holds of exactly this row: nothing, or the result. `complete` tells whether
// its repair, where it has one, is in it.
struct KeptRow {
  RowResult result;
  bool complete = false;
};
std::optional<KeptRow> kept_row(const CompareRequest& request, const CompareRow& row);

// Measures what is not kept yet, and keeps it in row.json of the row's folder as soon as it is
// known. False where a signal stopped it; the same call then goes on.
bool measure_row(const CompareRequest& request, const CompareRow& row);

}  // namespace refract
