#include "studies/own_corpus.h"

#include <filesystem>
#include <nlohmann/json.hpp>

#include "core/error.h"
#include "train/recipe.h"

namespace refract {

void require_corpus(const LoadedModel& loaded, const std::vector<std::string>& overrides,
                    const std::vector<std::string>& data) {
  if (!data.empty() || std::filesystem::exists(loaded.folder / "config.toml") ||
      sets_key(overrides_tree(overrides), "data.path"))
    return;
  fail_usage(
      "'{}' is not a run and has no corpus of its own; give one with --data, e.g. --data "
      "my.txt",
      loaded.folder.string());
}

}  // namespace refract
