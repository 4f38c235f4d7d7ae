// What a run's rules did to a model, row by row: shown at every start and kept in transforms.toml.
#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "transforms/rules.h"

namespace refract {

// What a rule did to a model.
struct PlanRow {
  int rule = -1;  // index; -1: what no rule matched
  std::string match, kind;
  std::vector<std::string> modules;  // in the order of the model
  int64_t dense_parameters = 0;      // weights of these layers as dense matrices
  int64_t parameters = 0;            // as they are now, biases apart
};

// Fails (usage) for a rule that stands for no module. `where` names the rules in the error.
void check_plan(const std::vector<PlanRow>& plan, const std::string& where);

// transforms.toml of a run: the rules as a recipe would hold them, the plan in comments before
// each. Empty where there are no rules.
std::string transforms_toml(const Rules& rules, const std::vector<PlanRow>& plan);

}  // namespace refract
