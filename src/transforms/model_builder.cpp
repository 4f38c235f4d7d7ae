#include "transforms/model_builder.h"

#include <nlohmann/json.hpp>

#include "core/error.h"
#include "model/layer_plan.h"
#include "transforms/guided.h"
#include "transforms/legacy/legacy.h"
#include "transforms/transform_factory.h"

namespace refract {
namespace {

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
        "{}: self_guided.mode is set, but no transform rule makes a layer that takes a guide ({})",
        where, fmt::join(guided_kinds(), ", "));
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

}  // namespace refract
