#include "bench/layers.h"

#include <ATen/ops/cat.h>
#include <ATen/ops/gelu.h>
#include <ATen/ops/linear.h>
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "core/error.h"
#include "transforms/kind.h"
#include "transforms/transform_factory.h"

namespace refract {
namespace {

using nlohmann::json;

std::string label_of(const std::string& kind, const json& parameters) {
  std::string label = kind;
  for (const auto& [key, value] : parameters.items())
    label += fmt::format(" {}={}", key, value.dump());
  return label;
}

// [[transform]] with one rule for everything.
Rules rules_for(const KindChoice& kind) {
  if (kind.table_json.empty()) return {};
  json table = json::parse(kind.table_json);
  table["match"] = ".*";
  return Rules::parse(json::array({table}).dump(), "the benchmark");
}

}  // namespace

std::vector<KindChoice> kinds_for_width(int64_t width, double share,
                                        const std::vector<std::string>& only) {
  const auto wanted = [&](const std::string& name) {
    return only.empty() || std::find(only.begin(), only.end(), name) != only.end();
  };
  for (const std::string& name : only) {
    if (name != "dense") find_kind(name);
  }
  std::vector<KindChoice> choices;
  for (const KindEntry& entry : registered_kinds()) {
    const auto kind = entry.make();
    if (!wanted(entry.name) || !kind->transforms_linear()) continue;
    json parameters = json::parse(kind->parameters_for_share(width, share));
    const std::string label = label_of(entry.name, parameters);
    parameters["kind"] = entry.name;
    choices.push_back({entry.name, label, parameters.dump()});
  }
  return choices;
}

BenchLayers::BenchLayers(const KindChoice& kind, std::vector<ProjectionSpec> groups,
                         at::Device device, at::ScalarType dtype)
    : specs_(std::move(groups)) {
  const TransformFactory factory(rules_for(kind));
  for (const ProjectionSpec& spec : specs_)
    groups_.push_back(factory.projections({arena_, buffers_, transformed_}, spec));
  arena_.freeze_all_but_adapters();
  arena_.allocate(device, at::kFloat, dtype);
  buffers_.to(device);
  arena_.initialize(1);
  for (const TransformedLayer& entry : transformed_) entry.layer->initialize(1);
  arena_.refresh_compute();
  clock_ = at::zeros({2}, at::TensorOptions().dtype(at::kLong).device(device));
}

at::Tensor BenchLayers::forward(const at::Tensor& x, bool training) {
  ForwardContext context;
  context.training = training;
  context.clock = clock_;
  at::Tensor y = x;
  for (const auto& group : groups_) y = group->forward(context, y);
  return y;
}

at::Tensor BenchLayers::merged(const ProjectionSpec& spec) const {
  std::vector<at::Tensor> parts;
  for (const LinearSpec& member : spec.members) {
    at::Tensor weight;
    for (const TransformedLayer& entry : transformed_) {
      if (entry.spec.name == member.name && entry.layer->computes_merged())
        weight = entry.layer->merged();
    }
    if (transformed_.empty()) {
      for (const Parameter& p : arena_.parameters()) {
        if (p.name == member.name + ".weight") weight = arena_.value(&p);
      }
    }
    if (!weight.defined()) return {};
    parts.push_back(weight);
  }
  return at::cat(parts).to(arena_.compute().scalar_type());
}

at::Tensor BenchLayers::reference(const at::Tensor& x) {
  at::Tensor y = x;
  for (const ProjectionSpec& spec : specs_) {
    const at::Tensor weight = merged(spec);
    if (!weight.defined()) return {};
    y = at::linear(y, weight);
    if (spec.activation == Activation::kGelu) y = at::gelu(y);
  }
  return y;
}

std::vector<ProjectionSpec> feed_forward(int64_t width, int64_t inner) {
  return {{{{"mlp.up_proj", width, inner, false, 0.02, 0}}, Activation::kGelu},
          {{{"mlp.down_proj", inner, width, false, 0.02, 0}}, Activation::kNone}};
}

std::vector<ProjectionSpec> single_layer(int64_t in, int64_t out) {
  return {{{{"layer", in, out, false, 0.02, 0}}, Activation::kNone}};
}

}  // namespace refract
