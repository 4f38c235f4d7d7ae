// Tiny models and token shards as files, for studies that open what they work on.
#pragma once
#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "core/random.h"
#include "data/tokens.h"
#include "formats/checkpoint.h"
#include "support/small_models.h"
#include "support/token_files.h"
#include "train/evaluate.h"

namespace refract::testing {

// A model folder, and the model that lies in it.
inline std::unique_ptr<Decoder> save_small_model(const std::filesystem::path& folder,
                                                 const ModelConfig& config, uint64_t seed) {
  std::unique_ptr<Decoder> model = make_decoder(config, at::kFloat, DenseFactory(), seed);
  save_model(*model, folder);
  return model;
}

// A shard of random tokens below `vocabulary`, and the tokens.
inline std::shared_ptr<TokenStream> save_shard(const std::filesystem::path& file,
                                               int64_t vocabulary, int64_t size) {
  RandomStream random(5, "tokens");
  std::vector<uint16_t> tokens;
  for (int64_t i = 0; i < size; ++i)
    tokens.push_back(static_cast<uint16_t>(random.below(static_cast<uint64_t>(vocabulary))));
  write_values(file, tokens);
  return open_shards({file});
}

}  // namespace refract::testing
