// Tokens of a model's vocabulary, the same in every run.
#pragma once
#include <cstdint>
#include <vector>

#include "core/random.h"
#include "model/config.h"

namespace refract::testing {

inline std::vector<int32_t> random_tokens(const ModelConfig& config, int64_t size) {
  RandomStream random(5, "tokens");
  std::vector<int32_t> tokens;
  for (int64_t i = 0; i < size; ++i)
    tokens.push_back(static_cast<int32_t>(random.below(static_cast<uint64_t>(config.vocab_size))));
  return tokens;
}

}  // namespace refract::testing
