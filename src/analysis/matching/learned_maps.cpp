#include "analysis/matching/learned_maps.h"

#include <ATen/Parallel.h>
#include <ATen/ops/eye.h>
#include <ATen/ops/from_blob.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/zeros.h>

#include <numeric>
#include <span>
#include <string>

#include "analysis/matching/head_maps.h"
#include "analysis/matching/linear_assignment.h"
#include "analysis/matching/orthogonal.h"

namespace refract {
namespace {

// The matrix P with (P x)_i = x_{p[i]}.
at::Tensor matrix_of(const Permutation& p, const at::TensorOptions& options) {
  const auto n = static_cast<int64_t>(p.size());
  const at::Tensor index = at::from_blob(const_cast<int64_t*>(p.data()), {n}, at::kLong).clone();
  return at::eye(n, options).index_select(0, index.to(options.device()));
}

void multiply_units(NamedWeights& weights, int64_t layer, const at::Tensor& p) {
  for (const char* name :
       {"mlp.up_proj.weight", "mlp.up_proj.bias", "mlp.gate_proj.weight", "mlp.gate_proj.bias"}) {
    const auto found = weights.find(in_layer(layer, name));
    if (found != weights.end()) found->second = at::matmul(p, found->second);
  }
  at::Tensor& down = weights.at(in_layer(layer, "mlp.down_proj.weight"));
  down = at::matmul(down, p.t());
}

}  // namespace

LearnedMaps::LearnedMaps(const ModelConfig& config, const MapClasses& classes,
                         const std::vector<at::Tensor>& scores, at::Device device)
    : config_(config), classes_(classes) {
  const int64_t C = config.hidden_size, D = config.head_dim;
  const auto options = at::TensorOptions().dtype(at::kFloat).device(device);
  const auto add = [&](at::IntArrayRef shape) {
    const at::Tensor value = at::zeros(shape, options).requires_grad_();
    free_.push_back({value, value});
    return value;
  };
  if (classes.stream) stream_ = add({C, C});
  if (classes.heads) {
    const std::vector<int64_t> shape = {config.num_hidden_layers, config.num_key_value_heads, D, D};
    keys_ = add(shape);
    values_ = add(shape);
  }
  first_unit_ = free_.size();
  if (!classes.units) return;
  for (const at::Tensor& score : scores) {
    const double largest = score.abs().max().item<double>();
    free_.push_back({score.div(largest > 0 ? largest : 1).to(options), {}, true});
    units_.emplace_back(static_cast<size_t>(config.intermediate_size));
    std::iota(units_.back().begin(), units_.back().end(), 0);
  }
  assign_units();
}

int64_t LearnedMaps::assign_units() {
  const auto layers = static_cast<int64_t>(units_.size());
  std::vector<at::Tensor> hosts;
  for (int64_t layer = 0; layer < layers; ++layer) {
    const Free& scores = free_[first_unit_ + static_cast<size_t>(layer)];
    hosts.push_back(scores.value.to(at::kCPU, at::kDouble).contiguous());
  }
  std::vector<Permutation> best(units_.size());
  at::parallel_for(0, layers, 1, [&](int64_t begin, int64_t end) {
    for (auto layer = static_cast<size_t>(begin); layer < static_cast<size_t>(end); ++layer) {
      const at::Tensor& host = hosts[layer];
      best[layer] = maximal_assignment(
          std::span<const double>(host.const_data_ptr<double>(), static_cast<size_t>(host.numel())),
          host.size(0));
    }
  });
  int64_t changed = 0;
  for (size_t layer = 0; layer < units_.size(); ++layer) {
    for (size_t i = 0; i < best[layer].size(); ++i) changed += best[layer][i] != units_[layer][i];
    units_[layer] = best[layer];
    Free& scores = free_[first_unit_ + layer];
    scores.leaf = matrix_of(best[layer], scores.value.options()).requires_grad_();
  }
  return changed;
}

NamedWeights LearnedMaps::apply(const NamedWeights& weights) const {
  NamedWeights mapped = weights;
  const auto like = weights.begin()->second.options().requires_grad(false);
  if (classes_.stream)
    rotate_residual(mapped, config_, rotation_of(stream_.to(like), !config_.rms()));
  HeadMaps maps;  // [L, K, D, D]
  if (classes_.heads) maps = invertible_maps(keys_.to(like), values_.to(like), config_);
  for (int64_t layer = 0; layer < config_.num_hidden_layers; ++layer) {
    if (classes_.heads) {
      map_heads(mapped, config_, layer,
                {maps.keys[layer], maps.values[layer], maps.inverse_keys[layer],
                 maps.inverse_values[layer]});
    }
    if (classes_.units)
      multiply_units(mapped, layer, free_[first_unit_ + static_cast<size_t>(layer)].leaf.to(like));
  }
  return mapped;
}

}  // namespace refract
