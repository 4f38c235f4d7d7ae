#include <nlohmann/json.hpp>

#include "formats/carried.h"
#include "formats/start_token.h"
#include "fuzz/fuzz_target.h"
#include "text/simple_tokenizers.h"

// What a model folder's config.json and, behind a zero byte, its generation_config.json say beside
// the model: where a text begins and ends, and keys that are carried along.
FUZZ_TARGET(special_ids) {
  static const refract::fuzz::Folder folder;
  static const auto tokenizer = refract::make_byte_tokenizer();
  const auto [config, generation] = refract::fuzz::two_files(text);
  folder.write("config.json", config);
  folder.write("generation_config.json", generation);
  const refract::Carried carried = refract::read_carried(folder.path());
  if (refract::start_token(carried, *tokenizer) < 0) std::abort();
  for (const refract::TokenId id : refract::stop_tokens(carried, *tokenizer)) {
    if (id < 0) std::abort();
  }
  nlohmann::json tree = {{"model_type", "llama"}, {"hidden_size", 64}};
  refract::carry_config(tree, carried, "llama");
  if (tree.at("hidden_size") != 64) std::abort();
}
