#include "analysis/matching/folding.h"

#include <ATen/ops/matmul.h>
#include <ATen/ops/ones_like.h>
#include <ATen/ops/where.h>
#include <ATen/ops/zeros_like.h>

#include <string>
#include <vector>

#include "core/error.h"
#include "model/layer_plan.h"

namespace refract {
namespace {

constexpr const char* kHead = "lm_head";

// A normalization and the linear layers that read what it hands on.
struct ReadNorm {
  std::string norm;
  std::vector<std::string> readers;
};

std::vector<ReadNorm> read_norms(const ModelConfig& config) {
  const ModelPlan plan = model_plan(config);
  std::vector<ReadNorm> all;
  const auto add = [&](const NormPlan& norm, const ProjectionSpec& readers) {
    all.push_back({norm.name, {}});
    for (const LinearSpec& member : readers.members) all.back().readers.push_back(member.name);
  };
  for (const LayerPlan& layer : plan.layers) {
    add(layer.input_norm, layer.qkv);
    add(layer.post_attention_norm, layer.up);
  }
  all.push_back({plan.final_norm.name, {kHead}});
  return all;
}

bool have_biases(const NamedWeights& weights, const ReadNorm& group) {
  return weights.contains(group.readers.front() + ".bias");
}

[[noreturn]] void refuse_zero(const std::string& norm, const char* consequence) {
  fail("'{}.weight' has a scale of 0, so {}; use --residual permutation", norm, consequence);
}

// bias / scale, where the bias is not 0 as well.
at::Tensor kept_bias(const at::Tensor& bias, const at::Tensor& scale, const std::string& norm) {
  const at::Tensor none = bias.eq(0);
  if (scale.eq(0).logical_and(none.logical_not()).any().item<bool>())
    refuse_zero(norm, "its bias can't be kept beside a scale of 1");
  return at::where(none, at::zeros_like(bias), bias.div(scale.masked_fill(none, 1)));
}

void fold(NamedWeights& weights, const ReadNorm& group) {
  at::Tensor& scale = weights.at(group.norm + ".weight");
  const auto bias = weights.find(group.norm + ".bias");
  const bool absorbed = have_biases(weights, group);
  for (const std::string& reader : group.readers) {
    at::Tensor& weight = weights.at(reader + ".weight");
    if (bias != weights.end() && absorbed) {
      at::Tensor& sum = weights.at(reader + ".bias");
      sum = sum.add(at::matmul(weight, bias->second));
    }
    weight = weight.mul(scale);
  }
  if (bias != weights.end()) {
    bias->second =
        absorbed ? at::zeros_like(bias->second) : kept_bias(bias->second, scale, group.norm);
  }
  scale = at::ones_like(scale);
}

void unfold(NamedWeights& weights, const ReadNorm& group, const NamedWeights& like) {
  const at::Tensor& scale = like.at(group.norm + ".weight");
  if (scale.eq(0).any().item<bool>())
    refuse_zero(group.norm, "the other model can't be written with its scales");
  const auto bias = weights.find(group.norm + ".bias");
  const bool absorbed = have_biases(weights, group);
  for (const std::string& reader : group.readers) {
    at::Tensor& weight = weights.at(reader + ".weight");
    weight = weight.div(scale);
    if (bias != weights.end() && absorbed) {
      at::Tensor& sum = weights.at(reader + ".bias");
      sum = sum.sub(at::matmul(weight, like.at(bias->first)));
    }
  }
  if (bias != weights.end())
    bias->second = absorbed ? like.at(bias->first).clone() : bias->second.mul(scale);
  weights.at(group.norm + ".weight") = scale.clone();
}

// Takes the mean over the channels out of all that writes to the stream.
void center_writers(NamedWeights& weights, const ModelConfig& config) {
  const auto center = [&](const std::string& name, int64_t dim) {
    const auto found = weights.find(name);
    if (found != weights.end())
      found->second = found->second.sub(found->second.mean(dim, /*keepdim=*/true));
  };
  for (const char* table : {"model.embed_tokens.weight", "model.embed_positions.weight"})
    center(table, 1);
  for (const std::string& name : residual_users(weights, config).writers) center(name, 0);
}

}  // namespace

ModelConfig folded_config(const ModelConfig& config) {
  ModelConfig folded = config;
  folded.tie_word_embeddings = false;
  return folded;
}

void fold_norms(NamedWeights& weights, const ModelConfig& config) {
  if (config.tie_word_embeddings)
    weights[std::string(kHead) + ".weight"] = weights.at("model.embed_tokens.weight").clone();
  for (const ReadNorm& group : read_norms(config)) fold(weights, group);
  if (!config.rms()) center_writers(weights, config);
}

void unfold_norms(NamedWeights& weights, const ModelConfig& config, const NamedWeights& like) {
  for (const ReadNorm& group : read_norms(config)) unfold(weights, group, like);
}

}  // namespace refract
