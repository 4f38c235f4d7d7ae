#include "transforms/model_builder.h"

#include <nlohmann/json.hpp>
#include <set>

#include "core/error.h"
#include "model/dense.h"
#include "model/layer_plan.h"
#include "transforms/guided.h"
#include "transforms/legacy.h"

namespace refract {
namespace {

const char* role(bool is_attention) { return is_attention ? "attention" : "a linear layer"; }

// Parameters below "<module>." that are no bias of the group, among those declared since `first`.
int64_t weights_below(const ParameterArena& arena, const std::string& module) {
  int64_t count = 0;
  const std::string prefix = module + ".";
  for (const Parameter& p : arena.parameters()) {
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

std::unique_ptr<Projections> TransformFactory::projections(Build build,
                                                           const ProjectionSpec& spec) const {
  std::vector<const Kind*> kinds;
  std::vector<int> rules;
  for (const LinearSpec& member : spec.members) {
    rules.push_back(choose(member.name, false));
    kinds.push_back(rules.back() < 0 ? nullptr : rules_.all()[rules.back()].make.get());
    if (kinds.back()) kinds.back()->check_shape(member);
  }
  std::unique_ptr<Projections> group;
  const bool same = std::set<const Kind*>(kinds.begin(), kinds.end()).size() == 1;
  const bool guided = self_guided_ && kinds[0] && kinds[0]->takes_guide();
  if (same && !guided) {
    group = kinds[0] ? kinds[0]->projections(build, spec)
                     : std::make_unique<DenseProjections>(build, spec);
  }
  if (!group) {
    std::vector<std::unique_ptr<LinearLayer>> layers;
    for (size_t i = 0; i < kinds.size(); ++i) {
      const LinearSpec& member = spec.members[i];
      if (!kinds[i]) {
        layers.push_back(std::make_unique<DenseLinear>(build, member));
        continue;
      }
      layers.push_back(layer(build, member, *kinds[i]));
      enter(build, member, rules_.all()[rules[i]].kind, layers.back().get());
    }
    group = std::make_unique<ComposedProjections>(build, spec, std::move(layers));
  }
  for (size_t i = 0; i < rules.size(); ++i) {
    const LinearSpec& member = spec.members[i];
    built_.push_back({member.name, rules[i], member.in_features * member.out_features,
                      weights_below(build.arena, member.name)});
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

namespace {

void check_plan(const std::vector<PlanRow>& plan, const std::string& where) {
  std::string known;
  for (const PlanRow& row : plan) {
    if (!row.modules.empty()) known = row.modules.front();
  }
  for (const PlanRow& row : plan) {
    if (row.rule < 0 || !row.modules.empty()) continue;
    fail_usage(
        "{}: transform rule {} ('{}') matches no module, or rules before it matched them all; "
        "a name is for example '{}'",
        where, row.rule + 1, row.match, known);
  }
}

Rules read_rules(const ModelConfig& config, const std::string& transform_json,
                 const std::string& where) {
  const auto value = nlohmann::json::parse(transform_json.empty() ? "null" : transform_json);
  if (!value.is_object() || !value.contains("legacy")) return Rules::parse(transform_json, where);
  if (value.size() > 1 || !value["legacy"].is_string()) {
    fail_usage("{}: transform.legacy takes the path of a rule file, and stands for all rules",
               where);
  }
  const std::string path = value["legacy"].get<std::string>();
  return Rules::parse(legacy_rules(path, module_names(config)), path);
}

void check_guides(const Decoder& decoder, const std::string& where) {
  if (!decoder.arena().has_guides()) {
    fail_usage(
        "{}: self_guided.mode is set, but no transform rule makes a layer that takes a guide "
        "(low_rank, block_dense, block_shuffle)",
        where);
  }
  for (const Parameter& parameter : decoder.arena().parameters()) {
    if (parameter.trainable) continue;
    fail_usage(
        "{}: self-guided training trains the whole model, but '{}' is frozen by an adapter; "
        "set self_guided.mode = \"none\"",
        where, parameter.name);
  }
}

}  // namespace

std::vector<std::string> module_names(const ModelConfig& config) {
  return module_names(model_plan(config));
}

TransformedModel build_model(const ModelConfig& config, const std::string& transform_json,
                             const std::string& where, bool self_guided,
                             const PremergeSettings* premerge) {
  const TransformFactory factory(read_rules(config, transform_json, where), self_guided);
  TransformedModel model;
  if (premerge) {
    const PremergeFactory wrapped(factory, *premerge);
    model.decoder = std::make_unique<Decoder>(config, wrapped);
    model.premerged = wrapped.groups();
  } else {
    model.decoder = std::make_unique<Decoder>(config, factory);
  }
  model.rules = factory.rules();
  model.plan = factory.plan();
  check_plan(model.plan, where);
  if (self_guided) check_guides(*model.decoder, where);
  return model;
}

std::string transforms_toml(const Rules& rules, const std::vector<PlanRow>& plan) {
  std::string text;
  for (const PlanRow& row : plan) {
    text += fmt::format("# {} module{}, {} -> {} parameters\n", row.modules.size(),
                        row.modules.size() == 1 ? "" : "s", row.dense_parameters, row.parameters);
    if (row.rule < 0) {
      text.insert(text.rfind("# ") + 2, "left alone: ");
    } else {
      text += rules.to_toml(static_cast<size_t>(row.rule)) + "\n";
    }
  }
  return rules.empty() ? "" : text;
}

}  // namespace refract
