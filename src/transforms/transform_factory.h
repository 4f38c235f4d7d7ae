// The LayerFactory that follows a run's rules: it asks the rules for a layer's kind and the kind
// for the layer.
#pragma once
#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "model/slots.h"
#include "transforms/plan.h"
#include "transforms/rules.h"

namespace refract {

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
  // The index of the module's rule, -1 for none; fails (usage) where its kind can't stand for it.
  int choose(const std::string& module, bool is_attention) const;
  std::unique_ptr<LinearLayer> layer(Build build, const LinearSpec& spec, const Kind& kind) const;
  // The members one by one; a null kind is dense.
  std::unique_ptr<Projections> composed(Build build, const ProjectionSpec& spec,
                                        const std::vector<const Kind*>& kinds) const;

  Rules rules_;
  bool self_guided_;
  mutable std::vector<Module> built_;  // a factory's functions are const; this only watches them
};

}  // namespace refract
