// Small folders that runs start from.
#pragma once
#include <filesystem>
#include <string>

#include "core/files.h"
#include "formats/checkpoint.h"
#include "support/small_models.h"
#include "support/training.h"
#include "text/simple_tokenizers.h"

namespace refract {

// An empty folder of this name.
inline std::filesystem::path empty_folder(const std::string& name) {
  const std::filesystem::path folder = tiny_config(name).run.dir;
  std::filesystem::create_directories(folder);
  return folder;
}

// A GPT-2 of width 8 with 2 layers over bytes, at most 12 tokens, and its tokenizer.
inline std::filesystem::path byte_model_folder(const std::string& name) {
  const std::filesystem::path folder = empty_folder(name);
  ModelConfig config = testing::small_gpt2();
  config.vocab_size = 257;
  save_model(*testing::make_decoder(config), folder);
  make_byte_tokenizer()->save(folder);
  return folder;
}

inline std::string write_recipe(const std::filesystem::path& folder, const std::string& text) {
  const std::filesystem::path path = folder / "recipe.toml";
  write_file_atomically(path, text);
  return path.string();
}

}  // namespace refract
