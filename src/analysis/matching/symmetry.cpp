#include "analysis/matching/symmetry.h"

#include <ATen/ops/from_blob.h>
#include <ATen/ops/matmul.h>
#include <fmt/format.h>

#include <set>

#include "model/layer_plan.h"

namespace refract {
namespace {

at::Tensor index_of(const Permutation& permutation) {
  // Cloned, since the vector may go before the tensor.
  return at::from_blob(const_cast<int64_t*>(permutation.data()),
                       {static_cast<int64_t>(permutation.size())}, at::kLong)
      .clone();
}

void reorder(NamedWeights& weights, const std::string& name, int64_t dim, const at::Tensor& index) {
  const auto found = weights.find(name);
  if (found != weights.end()) found->second = found->second.index_select(dim, index);
}

// The same for blocks of `size` rows or columns.
void reorder_blocks(NamedWeights& weights, const std::string& name, int64_t dim, int64_t size,
                    const Permutation& blocks) {
  Permutation all;
  for (int64_t block : blocks) {
    for (int64_t i = 0; i < size; ++i) all.push_back(block * size + i);
  }
  reorder(weights, name, dim, index_of(all));
}

// Names of the normalizations whose scales are those of the residual stream's channels.
std::set<std::string> stream_norms(const ModelConfig& config) {
  const ModelPlan plan = model_plan(config);
  std::set<std::string> names = {plan.final_norm.name};
  for (const LayerPlan& layer : plan.layers)
    names.insert({layer.input_norm.name, layer.post_attention_norm.name});
  return names;
}

}  // namespace

std::string in_layer(int64_t layer, const std::string& name) {
  return fmt::format("model.layers.{}.{}", layer, name);
}

NamedWeights named_weights(Decoder& model) {
  NamedWeights weights;
  for (const Parameter& parameter : model.arena().parameters())
    weights[parameter.name] = model.arena().value(&parameter).to(at::kCPU, at::kDouble).clone();
  return weights;
}

void write_weights(const NamedWeights& weights, Decoder& model) {
  for (const Parameter& parameter : model.arena().parameters())
    model.arena().value(&parameter).copy_(weights.at(parameter.name));
  model.arena().refresh_compute();
}

void permute_units(NamedWeights& weights, int64_t layer, const Permutation& units) {
  const at::Tensor index = index_of(units);
  for (const char* name :
       {"mlp.up_proj.weight", "mlp.up_proj.bias", "mlp.gate_proj.weight", "mlp.gate_proj.bias"}) {
    reorder(weights, in_layer(layer, name), 0, index);
  }
  reorder(weights, in_layer(layer, "mlp.down_proj.weight"), 1, index);
}

void permute_heads(NamedWeights& weights, const ModelConfig& config, int64_t layer,
                   const HeadPermutation& heads) {
  const int64_t per_group = config.num_attention_heads / config.num_key_value_heads;
  Permutation queries;
  for (size_t place = 0; place < heads.groups.size(); ++place) {
    for (int64_t head : heads.inner[place])
      queries.push_back(heads.groups[place] * per_group + head);
  }
  for (const char* kind : {"weight", "bias"}) {
    reorder_blocks(weights, in_layer(layer, std::string("self_attn.q_proj.") + kind), 0,
                   config.head_dim, queries);
    for (const char* projection : {"k", "v"}) {
      reorder_blocks(weights,
                     in_layer(layer, fmt::format("self_attn.{}_proj.{}", projection, kind)), 0,
                     config.head_dim, heads.groups);
    }
  }
  reorder_blocks(weights, in_layer(layer, "self_attn.o_proj.weight"), 1, config.head_dim, queries);
}

ResidualUsers residual_users(const NamedWeights& weights, const ModelConfig& config) {
  const std::set<std::string> norms = stream_norms(config);
  ResidualUsers users;
  for (const auto& [name, tensor] : weights) {
    const auto ends = [&, &name = name](const char* suffix) { return name.ends_with(suffix); };
    const bool writes =
        name.find(".o_proj.") != std::string::npos || name.find(".down_proj.") != std::string::npos;
    if (norms.contains(name.substr(0, name.rfind('.')))) {
      users.scales.push_back(name);
    } else if (writes) {
      users.writers.push_back(name);
    } else if (ends(".weight") && tensor.dim() == 2 && tensor.size(1) == config.hidden_size) {
      users.readers.push_back(name);  // embeddings and the head are [rows, C] as well
    }
  }
  return users;
}

void permute_residual(NamedWeights& weights, const ModelConfig& config,
                      const Permutation& channels) {
  const at::Tensor index = index_of(channels);
  const ResidualUsers users = residual_users(weights, config);
  for (const std::string& name : users.readers) reorder(weights, name, 1, index);
  for (const std::string& name : users.writers) reorder(weights, name, 0, index);
  for (const std::string& name : users.scales) reorder(weights, name, 0, index);
}

void rotate_residual(NamedWeights& weights, const ModelConfig& config, const at::Tensor& q) {
  const ResidualUsers users = residual_users(weights, config);
  for (const std::string& name : users.readers) weights[name] = at::matmul(weights[name], q.t());
  for (const std::string& name : users.writers) weights[name] = at::matmul(q, weights[name]);
  for (const std::string& name : users.scales) {  // the scales themselves are 1
    if (name.ends_with(".bias")) weights[name] = at::matmul(q, weights[name]);
  }
}

}  // namespace refract
