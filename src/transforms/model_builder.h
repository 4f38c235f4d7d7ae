// Models with a run's rules: from a configuration and [[transform]] tables to a decoder.
#pragma once
#include <memory>
#include <string>
#include <vector>

#include "model/config.h"
#include "model/decoder.h"
#include "transforms/plan.h"
#include "transforms/premerge.h"
#include "transforms/rules.h"

namespace refract {

// Names of what rules can stand for in a model: its linear layers and attentions, in its order.
std::vector<std::string> module_names(const ModelConfig& config);

// A model with its rules, not allocated. `transform_json` is the value of a recipe's `transform`
// key: an array of rules, or {"legacy": path} for a file of the published optical experiments
// (transforms/legacy/legacy.h). Fails (usage) for a rule that matches no module or stands for
// something its kind can't be, and for self_guided without a layer that takes a guide.
struct TransformedModel {
  std::unique_ptr<Decoder> decoder;
  Rules rules;
  std::vector<PlanRow> plan;
  std::vector<PremergeGroup> premerged;
};
// premerge: builds a model for inference, whose layers keep merged matrices as it says.
TransformedModel build_model(const ModelConfig& config, const std::string& transform_json,
                             const std::string& where, bool self_guided = false,
                             const PremergeSettings* premerge = nullptr);

}  // namespace refract
