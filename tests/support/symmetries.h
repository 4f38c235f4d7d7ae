// Symmetries of a decoder drawn at random, and what they must leave alone.
#pragma once
#include <ATen/ops/empty.h>
#include <ATen/ops/linalg_qr.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/zeros.h>

#include <cstdint>
#include <memory>
#include <numeric>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "analysis/matching/symmetry.h"
#include "core/random.h"
#include "model/decoder.h"
#include "support/small_models.h"

namespace refract::testing {

inline Permutation shuffled(int64_t n, uint64_t seed) {
  RandomStream random(seed, "shuffle");
  Permutation p(n);
  std::iota(p.begin(), p.end(), 0);
  for (int64_t i = n - 1; i > 0; --i)
    std::swap(p[i], p[random.below(static_cast<uint64_t>(i) + 1)]);
  return p;
}

// Every permutation there is, at random.
inline void shuffle(NamedWeights& weights, const ModelConfig& c, uint64_t seed,
                    bool residual = true) {
  for (int64_t layer = 0; layer < c.num_hidden_layers; ++layer) {
    const uint64_t own = 100 * seed + static_cast<uint64_t>(layer);
    permute_units(weights, layer, shuffled(c.intermediate_size, own));
    HeadPermutation heads{shuffled(c.num_key_value_heads, own + 1), {}};
    for (int64_t g = 0; g < c.num_key_value_heads; ++g) {
      heads.inner.push_back(shuffled(c.num_attention_heads / c.num_key_value_heads,
                                     own + 2 + static_cast<uint64_t>(g)));
    }
    permute_heads(weights, c, layer, heads);
  }
  if (residual) permute_residual(weights, c, shuffled(c.hidden_size, 100 * seed + 77));
}

inline at::Tensor random_rotation(int64_t n) {
  at::Tensor random = at::empty({n, n}, at::kDouble);
  RandomStream stream(9, "rotation");
  for (int64_t i = 0; i < n * n; ++i) random.mutable_data_ptr<double>()[i] = stream.uniform() - 0.5;
  return std::get<0>(at::linalg_qr(random));
}

// One that leaves the vector (1, ..., 1) where it is.
inline at::Tensor random_rotation_keeping_mean(int64_t n) {
  at::Tensor basis = random_rotation(n).clone();
  basis.select(1, 0).fill_(1);  // the first column of Q spans what it spans
  basis = std::get<0>(at::linalg_qr(basis));
  at::Tensor turn = at::zeros({n, n}, at::kDouble);
  turn[0][0] = 1;
  turn.narrow(0, 1, n - 1).narrow(1, 1, n - 1).copy_(random_rotation(n - 1));
  return at::matmul(at::matmul(basis, turn), basis.t());
}

// Pythia's: partial rotary positions, both branches from one stream, LayerNorms, its own head.
inline ModelConfig small_neox() {
  ModelConfig c = small_gpt2();
  c.position = "rope";
  c.partial_rotary_factor = 0.5;
  c.parallel_residual = true;
  c.hidden_act = "gelu";
  c.tie_word_embeddings = false;
  c.hidden_size = 16;
  c.num_attention_heads = c.num_key_value_heads = 2;
  c.head_dim = 8;
  c.intermediate_size = 0;
  resolve(c, 0, 0);
  return c;
}

// One configuration per setting, and GPT-2's, Llama's and Pythia's shapes with grouped heads.
inline std::vector<std::pair<std::string, ModelConfig>> every_shape() {
  std::vector<std::pair<std::string, ModelConfig>> all = every_setting();
  ModelConfig gpt2 = small_gpt2(), neox = small_neox(), llama = small_llama();
  all.emplace_back("neox", neox);
  for (ModelConfig* c : {&gpt2, &neox, &llama}) {
    c->num_attention_heads = 4;
    c->num_key_value_heads = 2;
    c->head_dim = 8;
  }
  all.emplace_back("gpt2 with groups", gpt2);
  all.emplace_back("neox with groups", neox);
  all.emplace_back("llama with wide groups", llama);
  return all;
}

// In float64, with these weights.
inline std::unique_ptr<Decoder> decoder_of(const ModelConfig& config, const NamedWeights& weights) {
  auto decoder = std::make_unique<Decoder>(config, DenseFactory());
  decoder->allocate(at::kCPU, at::kDouble, at::kDouble);
  write_weights(weights, *decoder);
  return decoder;
}

inline at::Tensor logits(Decoder& model) {
  return model.logits(model.hidden({}, tokens_for(model.config(), 3, 9)));
}

}  // namespace refract::testing
