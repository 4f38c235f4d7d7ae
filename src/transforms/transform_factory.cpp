#include "transforms/transform_factory.h"

#include <algorithm>
#include <set>

#include "core/error.h"
#include "model/dense.h"
#include "transforms/guided.h"
#include "transforms/structured/joint_projections.h"
#include "transforms/structured/structured_kind.h"

namespace refract {
namespace {

const char* role(bool is_attention) { return is_attention ? "attention" : "a linear layer"; }

bool is_joint(const Kind* kind) {
  const auto* structured = dynamic_cast<const StructuredKind*>(kind);
  return structured && structured->joint();
}

// Whether the group is one layer, of gate and up; fails (usage) where it should be and can't.
bool joins(const ProjectionSpec& spec, const std::vector<const Kind*>& kinds, bool same) {
  if (spec.activation == Activation::kNone || std::ranges::none_of(kinds, is_joint)) return false;
  const std::string& name = spec.members[0].name;
  if (spec.activation != Activation::kSwiglu) {
    fail_usage(
        "'{}': joint = true joins gate and up of a SwiGLU feed-forward, and this model has "
        "no gate; leave joint out",
        name);
  }
  if (!same) {
    fail_usage("'{}' and '{}': joint = true makes them one layer, so one rule must match both",
               name, spec.members[1].name);
  }
  return true;
}

// The number of values in the parameters below "<module>.", without its bias, among those that
// were declared after the first `before`: a group's own, or each group would look through all.
int64_t weights_below(const ParameterArena& arena, size_t before, const std::string& module) {
  int64_t count = 0;
  const std::string prefix = module + ".";
  for (size_t i = before; i < arena.parameters().size(); ++i) {
    const Parameter& p = arena.parameters()[i];
    if (p.name.starts_with(prefix) && p.name != prefix + "bias") count += p.numel();
  }
  return count;
}

}  // namespace

int TransformFactory::choose(const std::string& module, bool is_attention) const {
  const int rule = rules_.find(module);
  if (rule < 0 || !rules_.all()[rule].make) return rule;
  const Kind& kind = *rules_.all()[rule].make;
  if (is_attention ? kind.transforms_attention() : kind.transforms_linear()) return rule;
  fail_usage(
      "transform rule {} ('{}') matches '{}', but the kind \"{}\" can't stand for {}; narrow "
      "the expression or put a rule with kind = \"none\" before it",
      rule + 1, rules_.all()[rule].match, module, rules_.all()[rule].kind, role(is_attention));
}

std::unique_ptr<LinearLayer> TransformFactory::layer(Build build, const LinearSpec& spec,
                                                     const Kind& kind) const {
  auto layer = kind.linear(build, spec);
  if (!self_guided_ || !kind.takes_guide()) return layer;
  return make_guided(build, spec, std::move(layer));
}

std::unique_ptr<Projections> TransformFactory::composed(
    Build build, const ProjectionSpec& spec, const std::vector<const Kind*>& kinds) const {
  std::vector<std::unique_ptr<LinearLayer>> layers;
  for (size_t i = 0; i < kinds.size(); ++i) {
    const LinearSpec& member = spec.members[i];
    if (!kinds[i]) {
      layers.push_back(std::make_unique<DenseLinear>(build, member));
      continue;
    }
    layers.push_back(layer(build, member, *kinds[i]));
    enter(build, member, kinds[i]->name(), layers.back().get());
  }
  return std::make_unique<ComposedProjections>(build, spec, std::move(layers));
}

std::unique_ptr<Projections> TransformFactory::projections(Build build,
                                                           const ProjectionSpec& spec) const {
  std::vector<const Kind*> kinds;
  std::vector<int> rules;
  for (const LinearSpec& member : spec.members) {
    rules.push_back(choose(member.name, false));
    kinds.push_back(rules.back() < 0 ? nullptr : rules_.all()[rules.back()].make.get());
  }
  const size_t before = build.arena.parameters().size();
  std::unique_ptr<Projections> group;
  const bool same = std::set<const Kind*>(kinds.begin(), kinds.end()).size() == 1;
  const bool guided = self_guided_ && kinds[0] && kinds[0]->takes_guide();
  const bool joint = joins(spec, kinds, same);
  for (size_t i = 0; i < kinds.size() && !joint; ++i) {
    if (kinds[i]) kinds[i]->check_shape(spec.members[i]);
  }
  if (joint) {
    const LinearSpec both = joint_spec(spec);
    kinds[0]->check_shape(both);
    group = make_joint_projections(build, spec, layer(build, both, *kinds[0]), kinds[0]->name());
  } else if (same && !guided) {
    group = kinds[0] ? kinds[0]->projections(build, spec)
                     : std::make_unique<DenseProjections>(build, spec);
  }
  if (!group) group = composed(build, spec, kinds);
  for (size_t i = 0; i < rules.size(); ++i) {
    const LinearSpec& member = spec.members[i];
    built_.push_back({member.name, rules[i], member.in_features * member.out_features,
                      weights_below(build.arena, before, member.name)});
  }
  return group;
}

std::unique_ptr<AttentionCore> TransformFactory::attention(Build build,
                                                           const AttentionSpec& spec) const {
  const int rule = choose(spec.name, true);
  // Its projections lie below the same name, so an attention counts no parameters here.
  built_.push_back({spec.name, rule, 0, 0});
  const Kind* kind = rule < 0 ? nullptr : rules_.all()[rule].make.get();
  return kind ? kind->attention(build, spec) : std::make_unique<SdpaAttention>(spec);
}

std::vector<PlanRow> TransformFactory::plan() const {
  std::vector<PlanRow> rows;
  for (size_t i = 0; i < rules_.all().size(); ++i) {
    const Rule& rule = rules_.all()[i];
    rows.push_back({static_cast<int>(i), rule.match, rule.kind, {}, 0, 0});
  }
  rows.push_back({-1, "", "dense", {}, 0, 0});
  for (const Module& module : built_) {
    PlanRow& row = module.rule < 0 ? rows.back() : rows[static_cast<size_t>(module.rule)];
    row.modules.push_back(module.name);
    row.dense_parameters += module.dense_parameters;
    row.parameters += module.parameters;
  }
  return rows;
}

}  // namespace refract
