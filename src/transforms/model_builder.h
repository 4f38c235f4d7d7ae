// The LayerFactory that follows a run's rules, and what it built.
#pragma once
#include <memory>
#include <string>
#include <vector>

#include "model/decoder.h"
#include "model/slots.h"
#include "transforms/premerge.h"
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

class TransformFactory : public LayerFactory {
 public:
  // self_guided: layers of the kinds that take a guide get one (transforms/guided.h).
  explicit TransformFactory(Rules rules, bool self_guided = false)
      : rules_(std::move(rules)), self_guided_(self_guided) {}
  std::unique_ptr<Projections> projections(Build build, const ProjectionSpec& spec) const override;
  std::unique_ptr<AttentionCore> attention(Build build, const AttentionSpec& spec) const override;

  const Rules& rules() const { return rules_; }
  // Of the model built last: one row per rule, then the row of what is left alone.
  std::vector<PlanRow> plan() const;

 private:
  struct Module {
    std::string name;
    int rule;
    int64_t dense_parameters, parameters;
  };
  int choose(const std::string& module, bool is_attention) const;

  std::unique_ptr<LinearLayer> layer(Build build, const LinearSpec& spec, const Kind& kind) const;

  Rules rules_;
  bool self_guided_;
  mutable std::vector<Module> built_;  // a factory's functions are const; this only watches them
};

// Names of what rules can stand for in a model: its linear layers and attentions, in its order.
std::vector<std::string> module_names(const ModelConfig& config);

// A model with its rules, not allocated. `transform_json` is the value of a recipe's `transform`
// key: an array of rules, or {"legacy": path} for a file of the published optical experiments
// (transforms/legacy.h). Fails (usage) for a rule that matches no module or stands
// for something its kind can't be.
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

// transforms.toml of a run: the rules as a recipe would hold them, the plan in comments before
// each. Empty where there are no rules.
std::string transforms_toml(const Rules& rules, const std::vector<PlanRow>& plan);

}  // namespace refract
