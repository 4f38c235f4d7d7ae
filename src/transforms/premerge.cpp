#include "transforms/premerge.h"

#include <ATen/ops/cat.h>
#include <ATen/ops/zeros.h>

#include <nlohmann/json.hpp>

#include "core/error.h"
#include "core/toml.h"
#include "model/dense.h"
#include "ops/dense/linear/linear.h"

namespace refract {
namespace {

LinearLayer* transformed_member(const Build& build, size_t first, const std::string& name) {
  for (size_t i = first; i < build.transformed.size(); ++i) {
    if (build.transformed[i].spec.name == name) return build.transformed[i].layer;
  }
  return nullptr;
}

PremergeShape shape_of(const Build& build, const ProjectionSpec& spec, size_t first,
                       size_t first_parameter) {
  PremergeShape shape;
  for (const LinearSpec& member : spec.members) {
    std::string kind = "dense";
    for (size_t i = first; i < build.transformed.size(); ++i) {
      if (build.transformed[i].spec.name == member.name) kind = build.transformed[i].kind;
    }
    shape.kinds += (shape.kinds.empty() ? "" : "+") + kind;
    shape.in_features = member.in_features;
    shape.out_features += member.out_features;
  }
  const auto& parameters = build.arena.parameters();
  for (size_t i = first_parameter; i < parameters.size(); ++i) {
    if (parameters[i].shape.size() > 1) shape.parameters += parameters[i].numel();
  }
  return shape;
}

PremergeThreshold parse_threshold(const nlohmann::json& entry, const std::string& where) {
  try {
    return {{entry.at("kinds").get<std::string>(), entry.at("in_features").get<int64_t>(),
             entry.at("out_features").get<int64_t>(), entry.at("parameters").get<int64_t>()},
            entry.at("device").get<std::string>(),
            entry.at("precision").get<std::string>(),
            entry.at("tokens").get<int64_t>()};
  } catch (const nlohmann::json::exception&) {
    fail("'{}' is not a table of thresholds; delete it and run refract bench premerge again",
         where);
  }
}

}  // namespace

PremergeTable PremergeTable::read(const std::filesystem::path& path) {
  PremergeTable table;
  if (!std::filesystem::exists(path)) return table;
  const nlohmann::json tree = read_toml(path);
  for (const auto& entry : tree.value("threshold", nlohmann::json::array()))
    table.set(parse_threshold(entry, path.string()));
  return table;
}

std::string PremergeTable::to_toml() const {
  nlohmann::json all = nlohmann::json::array();
  for (const PremergeThreshold& t : thresholds_) {
    all.push_back({{"kinds", t.shape.kinds},
                   {"in_features", t.shape.in_features},
                   {"out_features", t.shape.out_features},
                   {"parameters", t.shape.parameters},
                   {"device", t.device},
                   {"precision", t.precision},
                   {"tokens", t.tokens}});
  }
  return "# By refract bench premerge: calls of up to `tokens` tokens use the merged matrix.\n" +
         refract::to_toml(nlohmann::json{{"threshold", all}});
}

void PremergeTable::set(const PremergeThreshold& threshold) {
  for (PremergeThreshold& known : thresholds_) {
    if (known.shape == threshold.shape && known.device == threshold.device &&
        known.precision == threshold.precision) {
      known.tokens = threshold.tokens;
      return;
    }
  }
  thresholds_.push_back(threshold);
}

std::optional<int64_t> PremergeTable::find(const PremergeShape& shape, const std::string& device,
                                           const std::string& precision) const {
  for (const PremergeThreshold& t : thresholds_) {
    if (t.shape == shape && t.device == device && t.precision == precision) return t.tokens;
  }
  return std::nullopt;
}

int64_t default_premerge_tokens(bool cuda) { return cuda ? 64 : 0; }

PremergedProjections::PremergedProjections(Build build, const ProjectionSpec& spec, size_t first,
                                           std::unique_ptr<Projections> structured, int64_t tokens)
    : spec_(spec),
      build_(build),
      first_(first),
      structured_(std::move(structured)),
      tokens_(tokens) {
  for (const LinearSpec& member : spec.members)
    biases_.push_back(member.bias ? build.arena.find(member.name + ".bias") : nullptr);
}

at::Tensor PremergedProjections::merge() const {
  std::vector<at::Tensor> parts;
  for (const LinearSpec& member : spec_.members) {
    const LinearLayer* layer = transformed_member(build_, first_, member.name);
    if (layer && !layer->computes_merged()) return {};
    parts.push_back(layer ? layer->merged()
                          : build_.arena.value(build_.arena.find(member.name + ".weight")));
    if (!parts.back().defined()) return {};
  }
  return parts.size() == 1 ? parts[0] : at::cat(parts);
}

bool PremergedProjections::mergeable() const { return merge().defined(); }

int64_t PremergedProjections::bytes() const {
  if (tokens_ <= 0 || !mergeable()) return 0;
  int64_t elements = 0;
  for (const LinearSpec& member : spec_.members)
    elements += member.in_features * member.out_features;
  return elements * static_cast<int64_t>(build_.arena.compute().element_size());
}

void PremergedProjections::refresh() {
  // Both count up: of what is trained, and of what is frozen in the compute type.
  const uint32_t version = build_.arena.master()._version() + build_.arena.compute()._version();
  if ((weight_.defined() || !has_merged_) && version == version_) return;
  version_ = version;
  const at::ScalarType dtype = build_.arena.compute().scalar_type();
  const at::Tensor merged = merge();
  has_merged_ = merged.defined();
  if (!has_merged_) return;
  weight_ = merged.to(dtype, /*non_blocking=*/false, /*copy=*/true);
  std::vector<at::Tensor> biases;
  bool any = false;
  for (size_t i = 0; i < biases_.size(); ++i) {
    any = any || biases_[i] != nullptr;
    biases.push_back(biases_[i] ? build_.arena.value(biases_[i]).to(dtype)
                                : at::zeros({spec_.members[i].out_features}, weight_.options()));
  }
  if (any) bias_ = at::cat(biases);
}

at::Tensor PremergedProjections::forward_merged(const at::Tensor& x) {
  refresh();
  if (!has_merged_) {
    fail("'{}' has no merged matrix; set decode.premerge = \"off\"", spec_.members.front().name);
  }
  if (spec_.activation == Activation::kNone)
    return fused_linear(x, weight_, bias_.defined() ? std::optional(bias_) : std::nullopt);
  return apply_epilogue(fused_linear(x, weight_), bias_, spec_.activation);
}

at::Tensor PremergedProjections::forward(const ForwardContext& context, const at::Tensor& x) {
  const int64_t tokens = x.numel() / x.size(-1);
  if (context.training || tokens > tokens_) return structured_->forward(context, x);
  refresh();
  return has_merged_ ? forward_merged(x) : structured_->forward(context, x);
}

std::unique_ptr<Projections> PremergeFactory::projections(Build build,
                                                          const ProjectionSpec& spec) const {
  const size_t first = build.transformed.size();
  const size_t first_parameter = build.arena.parameters().size();
  auto group = inner_.projections(build, spec);
  if (build.transformed.size() == first || settings_.mode == "off") return group;
  const PremergeShape shape = shape_of(build, spec, first, first_parameter);
  const int64_t tokens = settings_.mode == "on"
                             ? kPremergeAlways
                             : settings_.table.find(shape, settings_.device, settings_.precision)
                                   .value_or(settings_.default_tokens);
  auto wrapped =
      std::make_unique<PremergedProjections>(build, spec, first, std::move(group), tokens);
  groups_.push_back({spec, shape, wrapped.get()});
  return wrapped;
}

}  // namespace refract
