// The model of a run with its transform rules, before anything is allocated.
#pragma once
#include <string>

#include "train/run_config.h"
#include "transforms/model_builder.h"

namespace refract {

// Builds it, not allocated, with what the rules came to. The rules in `config` become the effective
// ones (a legacy rule file's are written out). premerge: for inference. `where` names the source of
// the settings in errors.
TransformedModel plan_model(RunConfig& config, const std::string& where,
                            const PremergeSettings* premerge = nullptr);

// The histogram of the rules: rule, kind, modules, parameters before and after. Empty without
// rules.
std::string plan_table(const TransformedModel& model);

}  // namespace refract
