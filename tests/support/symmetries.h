// Symmetries of a decoder drawn at random, and what they must leave alone.
#pragma once
#include <ATen/ops/empty.h>
#include <ATen/ops/linalg_qr.h>

#include <cstdint>
#include <numeric>
#include <tuple>
#include <utility>

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

inline at::Tensor logits(Decoder& model) {
  return model.logits(model.hidden({}, tokens_for(model.config(), 3, 9)));
}

}  // namespace refract::testing
