#include "analysis/matching/head_maps.h"

#include <ATen/ops/cat.h>
#include <ATen/ops/diag_embed.h>
#include <ATen/ops/eye.h>
#include <ATen/ops/from_blob.h>
#include <ATen/ops/linalg_matrix_exp.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/where.h>
#include <ATen/ops/zeros.h>
#include <ATen/ops/zeros_like.h>

#include <string>
#include <vector>

#include "analysis/matching/orthogonal.h"

namespace refract {
namespace {

// Channels of a head: those that turn together, first[i] with second[i], and those that stand still
// (model/rope.h).
struct Channels {
  std::vector<int64_t> first, second, still;
};

Channels channels_of(const ModelConfig& config) {
  const int64_t half = config.head_dim / 2;
  const int64_t turning = config.position == "rope" ? config.rotary_width() / 2 : 0;
  Channels channels;
  for (int64_t i = 0; i < half; ++i) {
    const int64_t a = config.rotary_interleaved ? 2 * i : i;
    const int64_t b = config.rotary_interleaved ? 2 * i + 1 : i + half;
    if (i < turning) {
      channels.first.push_back(a);
      channels.second.push_back(b);
    } else {
      channels.still.insert(channels.still.end(), {a, b});
    }
  }
  if (config.head_dim % 2 != 0) channels.still.push_back(config.head_dim - 1);
  return channels;
}

at::Tensor index_of(const std::vector<int64_t>& places, at::Device device) {
  return at::from_blob(const_cast<int64_t*>(places.data()), {static_cast<int64_t>(places.size())},
                       at::kLong)
      .clone()
      .to(device);
}

// Rows and columns `rows` and `columns` of x.
at::Tensor block(const at::Tensor& x, const at::Tensor& rows, const at::Tensor& columns) {
  return x.index_select(-2, rows).index_select(-1, columns);
}

// X as the map does not see more of it: (c, s) of each turning pair, [..., pairs], and the block of
// the channels that stand still.
struct KeyParts {
  at::Tensor c, s, still;
};

KeyParts parts_of(const at::Tensor& x, const Channels& channels) {
  const at::Tensor first = index_of(channels.first, x.device()),
                   second = index_of(channels.second, x.device()),
                   still = index_of(channels.still, x.device());
  const auto diagonal = [&](const at::Tensor& rows, const at::Tensor& columns) {
    return block(x, rows, columns).diagonal(0, -2, -1);
  };
  return {diagonal(first, first).add(diagonal(second, second)).mul(0.5),
          diagonal(second, first).sub(diagonal(first, second)).mul(0.5), block(x, still, still)};
}

at::Tensor whole_of(const KeyParts& parts, const Channels& channels) {
  const at::Tensor c = at::diag_embed(parts.c), s = at::diag_embed(parts.s);
  const at::Tensor turning =
      at::cat({at::cat({c, s.neg()}, -1), at::cat({s, c}, -1)}, -2);  // second after first
  std::vector<int64_t> beside = turning.sizes().vec();
  beside.back() = parts.still.size(-1);
  const at::Tensor none = at::zeros(beside, turning.options());
  const at::Tensor ordered = at::cat(
      {at::cat({turning, none}, -1), at::cat({none.transpose(-2, -1), parts.still}, -1)}, -2);
  // From the order (first, second, still) to the channels' own.
  std::vector<int64_t> places(channels.first.size() * 2 + channels.still.size());
  int64_t next = 0;
  for (const auto* some : {&channels.first, &channels.second, &channels.still}) {
    for (const int64_t channel : *some) places[channel] = next++;
  }
  const at::Tensor index = index_of(places, ordered.device());
  return block(ordered, index, index);
}

at::Tensor identity_like(const at::Tensor& x) {
  return at::eye(x.size(-1), x.options().requires_grad(false)).expand(x.sizes());
}

// The rows of each head, [heads, D, columns], by that head's matrix [heads, D, D].
void map_rows(NamedWeights& weights, const std::string& module, const at::Tensor& maps) {
  for (const char* kind : {".weight", ".bias"}) {
    const auto found = weights.find(module + kind);
    if (found == weights.end()) continue;
    const at::Tensor rows = found->second.reshape({maps.size(0), maps.size(1), -1});
    found->second = at::matmul(maps, rows).reshape(found->second.sizes());
  }
}

}  // namespace

void map_heads(NamedWeights& weights, const ModelConfig& config, int64_t layer,
               const HeadMaps& maps) {
  const int64_t per_group = config.num_attention_heads / config.num_key_value_heads;
  const auto module = [&](const char* name) {
    return in_layer(layer, std::string("self_attn.") + name);
  };
  const auto of_queries = [&](const at::Tensor& inverse) {  // its transpose, for each query head
    return inverse.transpose(-2, -1).repeat_interleave(per_group, 0);
  };
  map_rows(weights, module("k_proj"), maps.keys);
  map_rows(weights, module("q_proj"), of_queries(maps.inverse_keys));
  map_rows(weights, module("v_proj"), maps.values);
  at::Tensor& output = weights.at(module("o_proj.weight"));
  const at::Tensor columns =
      output.t().reshape({config.num_attention_heads, config.head_dim, output.size(0)});
  output = at::matmul(of_queries(maps.inverse_values), columns)
               .reshape({-1, output.size(0)})
               .t()
               .contiguous();
}

HeadMaps rotations(const at::Tensor& keys, const at::Tensor& values) {
  return {keys, values, keys.transpose(-2, -1), values.transpose(-2, -1)};
}

HeadMaps invertible_maps(const at::Tensor& x, const at::Tensor& y, const ModelConfig& config) {
  // What commutes with a rotation of pairs is a linear space that holds its own exponentials.
  const Channels channels = channels_of(config);
  at::Tensor keys = x;
  if (config.qk_norm)
    keys = at::zeros_like(x);
  else if (!channels.first.empty())
    keys = whole_of(parts_of(x, channels), channels);
  return {at::linalg_matrix_exp(keys), at::linalg_matrix_exp(y), at::linalg_matrix_exp(keys.neg()),
          at::linalg_matrix_exp(y.neg())};
}

at::Tensor best_key_rotation(const at::Tensor& score, const ModelConfig& config) {
  if (config.qk_norm) return identity_like(score);
  const Channels channels = channels_of(config);
  if (channels.first.empty()) return procrustes(score);
  KeyParts parts = parts_of(score, channels);
  const at::Tensor length = parts.c.square().add(parts.s.square()).sqrt();
  const at::Tensor stays = length.eq(0);
  parts.c = at::where(stays, length.add(1), parts.c.div(length));
  parts.s = at::where(stays, length, parts.s.div(length));
  if (!channels.still.empty()) parts.still = procrustes(parts.still);
  return whole_of(parts, channels);
}

}  // namespace refract
