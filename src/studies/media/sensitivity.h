// The study of `refract sensitivity`: which part of a model can't live in its medium.
#pragma once
#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "analysis/sensitivity.h"
#include "studies/media/medium_rules.h"
#include "studies/media/proposals.h"

namespace refract {

struct SensitivityStudy {
  std::string model;
  std::vector<std::string> overrides, data;
  MediumChoice medium;
  std::vector<std::string> by = {"types", "layers"};  // and "modules", "roles"
  int64_t tokens = 2048;
  // Shares of the multiplications that a proposal may leave outside, a proposal for each.
  std::vector<double> keep_digital;
  bool uniform = false;  // measure choices beside them that know nothing of the medium
  std::string out = "sensitivity";
};

// A set of modules, or a role.
struct SensitivityRow {
  std::string group;  // "types", "layers", "modules", "roles"
  std::string name;   // "down_proj", "3", "model.layers.3.mlp.down_proj", "x"
  double only = 0;    // loss with the medium there alone
  double except = 0;  // loss with the medium everywhere but there; NaN: not measured
};

struct SensitivityResult {
  double dense = 0, medium = 0;  // losses
  int64_t tokens = 0;
  std::vector<SensitivityRow> rows;   // in the order of the model
  std::vector<RoleStatistics> roles;  // the least signal-to-noise ratio first
  std::vector<DigitalProposal> proposals;
  double seconds = 0;
};

// Writes sensitivity.json, sensitivity.csv, report.html and, for a proposal, rules.toml into `out`;
// for several rules-2%.toml and its like.
// Fails (usage) for a model without rules, an unknown group, and where `out` can't be made.
SensitivityResult measure_sensitivity(const SensitivityStudy& study);

nlohmann::json sensitivity_json(const SensitivityResult& result);

}  // namespace refract
