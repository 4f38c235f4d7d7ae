#include "runs/open_recipe.h"

#include <memory>
#include <nlohmann/json.hpp>

#include "core/error.h"
#include "data/tokenize.h"
#include "formats/hf_config.h"
#include "formats/model_path.h"
#include "runs/model_folder.h"

namespace refract {

Recipe open_recipe(const std::string& path, const std::vector<std::string>& overrides) {
  const nlohmann::json tree = read_recipe(path, overrides);
  Recipe recipe;
  recipe.names_tokenizer = sets_key(tree, "data.tokenizer");
  std::string from = "random";
  if (sets_key(tree, "init.from")) {
    if (!tree["init"]["from"].is_string()) fail_usage("{}: init.from takes text, in quotes", path);
    from = tree["init"]["from"].get<std::string>();
  }
  if (from == "random") {
    recipe.config = make_run_config(tree, path);
  } else {
    recipe.source = resolve_model_path(from);
    const ModelConfig base = read_model_config(recipe.source);
    recipe.config = make_run_config(tree, path, &base);
  }
  return recipe;
}

Recipe open_resolved_recipe(const std::string& path, const std::vector<std::string>& overrides) {
  Recipe recipe = open_recipe(path, overrides);
  int64_t vocabulary = 0;
  if (recipe.config.model.vocab_size == 0) {  // only then is the tokenizer worth opening
    const auto tokenizer = !recipe.source.empty() && !recipe.names_tokenizer
                               ? folder_tokenizer(recipe.source)
                               : nullptr;
    vocabulary = (tokenizer ? tokenizer : make_tokenizer(recipe.config.data))->vocab_size();
  }
  resolve(recipe.config.model, vocabulary, recipe.config.data.context);
  return recipe;
}

}  // namespace refract
