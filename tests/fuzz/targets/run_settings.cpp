#include <nlohmann/json.hpp>

#include "fuzz/fuzz_target.h"
#include "train/recipe.h"

// The settings of a run that is gone on with and, behind a zero byte, the record of its corpus,
// which says where the paths in them began.
FUZZ_TARGET(run_settings) {
  static const refract::fuzz::Folder folder;
  const auto [settings, record] = refract::fuzz::two_files(text);
  folder.write("corpus.json", record);
  refract::read_recipe(folder.write("config.toml", settings).string(), {});
}
