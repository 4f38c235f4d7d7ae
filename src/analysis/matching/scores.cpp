#include "analysis/matching/scores.h"

#include <ATen/ops/cat.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/outer.h>
#include <ATen/ops/zeros.h>

#include <cmath>
#include <numeric>
#include <span>
#include <string>
#include <vector>

#include "analysis/matching/linear_assignment.h"
#include "analysis/matching/orthogonal.h"

namespace refract {
namespace {

Permutation identity(int64_t n) {
  Permutation p(n);
  std::iota(p.begin(), p.end(), 0);
  return p;
}

// What matching row i of A with row j of B would add.
at::Tensor row_scores(const NamedWeights& a, const NamedWeights& b, const std::string& name) {
  const at::Tensor &x = a.at(name), &y = b.at(name);
  return x.dim() == 1 ? at::outer(x, y) : at::matmul(x, y.t());
}

// Rows in blocks of head_dim, flattened: [heads, head_dim * columns].
at::Tensor head_rows(const at::Tensor& rows, int64_t head_dim) {
  return rows.reshape({rows.size(0) / head_dim, -1});
}

at::Tensor block_scores(const NamedWeights& a, const NamedWeights& b, const std::string& module,
                        int64_t head_dim) {
  at::Tensor score;
  for (const char* kind : {".weight", ".bias"}) {
    if (!a.contains(module + kind)) continue;
    const at::Tensor part = at::matmul(head_rows(a.at(module + kind), head_dim),
                                       head_rows(b.at(module + kind), head_dim).t());
    score = score.defined() ? score.add(part) : part;
  }
  return score;
}

// Weights and bias of a layer by head, [heads, D, columns].
at::Tensor with_bias(const NamedWeights& w, const std::string& module, int64_t head_dim) {
  at::Tensor rows = w.at(module + ".weight");
  const auto bias = w.find(module + ".bias");
  if (bias != w.end()) rows = at::cat({rows, bias->second.unsqueeze(1)}, 1);
  return rows.reshape({rows.size(0) / head_dim, head_dim, -1});
}

// What is mapped together inside the heads of a layer: [heads, D, columns] each.
struct HeadRows {
  HeadRows(const NamedWeights& w, const ModelConfig& config, int64_t layer) {
    const int64_t D = config.head_dim;
    queries = with_bias(w, in_layer(layer, "self_attn.q_proj"), D);
    keys = with_bias(w, in_layer(layer, "self_attn.k_proj"), D);
    values = with_bias(w, in_layer(layer, "self_attn.v_proj"), D);
    const at::Tensor& output = w.at(in_layer(layer, "self_attn.o_proj.weight"));
    outputs = output.t().reshape({-1, D, output.size(0)});
  }
  at::Tensor queries, keys, values, outputs;
};

// Of every head of A with every head of B: [n, n, D, D].
at::Tensor pair_products(const at::Tensor& a, const at::Tensor& b) {
  return at::matmul(a.unsqueeze(1), b.transpose(-2, -1).unsqueeze(0));
}
// <x, y> over the last two dimensions.
at::Tensor overlap(const at::Tensor& x, const at::Tensor& y) { return x.mul(y).sum({-2, -1}); }

}  // namespace

int64_t moved(const Permutation& p) {
  int64_t count = 0;
  for (size_t i = 0; i < p.size(); ++i) count += p[i] != static_cast<int64_t>(i);
  return count;
}

Permutation best_permutation(const at::Tensor& score) {
  const at::Tensor s = score.to(at::kDouble).contiguous();
  const int64_t n = s.size(0);
  const double* data = s.const_data_ptr<double>();
  Permutation p = maximal_assignment({data, static_cast<size_t>(n * n)}, n);
  double best = 0, stay = 0, scale = 0;
  for (int64_t i = 0; i < n; ++i) {
    best += data[i * n + p[i]];
    stay += data[i * n + i];
    scale += std::abs(data[i * n + p[i]]);
  }
  return best - stay > 1e-12 * scale ? p : identity(n);
}

at::Tensor unit_scores(const NamedWeights& a, const NamedWeights& b, int64_t layer) {
  const std::string down = in_layer(layer, "mlp.down_proj.weight");
  at::Tensor score = at::matmul(a.at(down).t(), b.at(down));
  for (const char* name :
       {"mlp.up_proj.weight", "mlp.up_proj.bias", "mlp.gate_proj.weight", "mlp.gate_proj.bias"}) {
    if (a.contains(in_layer(layer, name)))
      score = score.add(row_scores(a, b, in_layer(layer, name)));
  }
  return score;
}

HeadScores head_scores(const NamedWeights& a, const NamedWeights& b, const ModelConfig& config,
                       int64_t layer) {
  const auto columns = [&](const NamedWeights& w) {  // of o_proj, by head
    const at::Tensor output = w.at(in_layer(layer, "self_attn.o_proj.weight"));
    return head_rows(output.t().contiguous(), config.head_dim);
  };
  HeadScores scores;
  scores.queries = block_scores(a, b, in_layer(layer, "self_attn.q_proj"), config.head_dim)
                       .add(at::matmul(columns(a), columns(b).t()));
  scores.groups =
      block_scores(a, b, in_layer(layer, "self_attn.k_proj"), config.head_dim)
          .add(block_scores(a, b, in_layer(layer, "self_attn.v_proj"), config.head_dim));
  return scores;
}

HeadPermutation best_heads(const HeadScores& scores, const ModelConfig& config) {
  const int64_t groups = config.num_key_value_heads, size = config.num_attention_heads / groups;
  at::Tensor total = scores.groups.clone();
  std::vector<std::vector<Permutation>> inner(groups, std::vector<Permutation>(groups));
  for (int64_t i = 0; i < groups; ++i) {
    for (int64_t j = 0; j < groups; ++j) {
      const at::Tensor block = scores.queries.narrow(0, i * size, size).narrow(1, j * size, size);
      inner[i][j] = best_permutation(block);
      for (int64_t h = 0; h < size; ++h) total[i][j] += block[h][inner[i][j][h]];
    }
  }
  HeadPermutation heads;
  heads.groups = best_permutation(total);
  for (int64_t i = 0; i < groups; ++i) heads.inner.push_back(inner[i][heads.groups[i]]);
  return heads;
}

int64_t moved(const HeadPermutation& heads) {
  int64_t count = 0;
  for (size_t i = 0; i < heads.groups.size(); ++i) {
    const bool same = heads.groups[i] == static_cast<int64_t>(i);
    count += same ? moved(heads.inner[i]) : static_cast<int64_t>(heads.inner[i].size());
  }
  return count;
}

HeadPermutation best_rotated_heads(const NamedWeights& a, const NamedWeights& b,
                                   const ModelConfig& config, int64_t layer) {
  const int64_t groups = config.num_key_value_heads, size = config.num_attention_heads / groups;
  const HeadRows x(a, config, layer), y(b, config, layer);
  const at::Tensor keys = pair_products(x.keys, y.keys), values = pair_products(x.values, y.values);
  const at::Tensor queries = pair_products(x.queries, y.queries),
                   outputs = pair_products(x.outputs, y.outputs);
  const at::Tensor first_n = best_key_rotation(keys, config), first_m = procrustes(values);
  at::Tensor total = at::zeros({groups, groups}, keys.options());
  std::vector<std::vector<Permutation>> orders(groups, std::vector<Permutation>(groups));
  for (int64_t i = 0; i < groups; ++i) {
    for (int64_t j = 0; j < groups; ++j) {
      const auto block = [&](const at::Tensor& of) {  // [size, size, D, D]
        return of.narrow(0, i * size, size).narrow(1, j * size, size);
      };
      orders[i][j] = best_permutation(
          overlap(block(queries), first_n[i][j]).add(overlap(block(outputs), first_m[i][j])));
      at::Tensor for_keys = keys[i][j], for_values = values[i][j];
      for (int64_t h = 0; h < size; ++h) {
        for_keys = for_keys.add(block(queries)[h][orders[i][j][h]]);
        for_values = for_values.add(block(outputs)[h][orders[i][j][h]]);
      }
      total[i][j] = overlap(best_key_rotation(for_keys, config), for_keys)
                        .add(overlap(procrustes(for_values), for_values));
    }
  }
  HeadPermutation heads;
  heads.groups = best_permutation(total);
  for (int64_t i = 0; i < groups; ++i) heads.inner.push_back(orders[i][heads.groups[i]]);
  return heads;
}

HeadMaps best_rotations(const NamedWeights& a, const NamedWeights& b, const ModelConfig& config,
                        int64_t layer) {
  const int64_t groups = config.num_key_value_heads, D = config.head_dim;
  const HeadRows x(a, config, layer), y(b, config, layer);
  const auto by_group = [&](const at::Tensor& one, const at::Tensor& other) {
    return at::matmul(one, other.transpose(-2, -1)).reshape({groups, -1, D, D}).sum(1);
  };
  return rotations(
      best_key_rotation(by_group(x.keys, y.keys).add(by_group(x.queries, y.queries)), config),
      procrustes(by_group(x.values, y.values).add(by_group(x.outputs, y.outputs))));
}

at::Tensor residual_scores(const NamedWeights& a, const NamedWeights& b, const ModelConfig& config,
                           bool settled, bool folded) {
  at::Tensor score = at::zeros({config.hidden_size, config.hidden_size}, at::kDouble);
  const ResidualUsers users = residual_users(a, config);
  for (const std::string& name : users.readers) {
    const bool other_side_ordered = name.find(".layers.") == std::string::npos;
    if (settled && !other_side_ordered) continue;
    score.add_(at::matmul(a.at(name).t(), b.at(name)));
  }
  for (const std::string& name : users.writers) {
    if (settled && a.at(name).dim() == 2) continue;
    score.add_(row_scores(a, b, name));
  }
  for (const std::string& name : users.scales) {
    if (!folded || name.ends_with(".bias")) score.add_(row_scores(a, b, name));
  }
  return score;
}

double distance(const NamedWeights& a, const NamedWeights& b) {
  double sum = 0;
  for (const auto& [name, value] : a) sum += value.sub(b.at(name)).square().sum().item<double>();
  return std::sqrt(sum);
}

}  // namespace refract
