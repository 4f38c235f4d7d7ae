// A recipe with the model that it starts from.
#pragma once
#include <filesystem>
#include <string>
#include <vector>

#include "train/run_config.h"

namespace refract {

// The settings of a recipe; with init.from the model's come from there.
struct Recipe {
  RunConfig config;
  std::filesystem::path source;  // the folder of init.from; empty: random weights
  bool names_tokenizer = false;  // data.tokenizer stands in the recipe itself
};
Recipe open_recipe(const std::string& path, const std::vector<std::string>& overrides);
// The same with the model's settings resolved; opens the tokenizer only for a vocabulary that
// nothing else gives.
Recipe open_resolved_recipe(const std::string& path, const std::vector<std::string>& overrides);

}  // namespace refract
