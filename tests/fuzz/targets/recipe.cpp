#include "train/recipe.h"

#include <nlohmann/json.hpp>

#include "fuzz/fuzz_target.h"

// A recipe and, behind a zero byte, the base that it may name ("base.toml").
FUZZ_TARGET(recipe) {
  static const refract::fuzz::Folder folder;
  const auto [recipe, base] = refract::fuzz::two_files(text);
  folder.write("base.toml", base);
  refract::read_recipe(folder.write("recipe.toml", recipe).string(), {"optimizer.lr=1e-3"});
}
