#include "runs/model_folder.h"

#include <nlohmann/json.hpp>

#include "core/toml.h"
#include "formats/hf_config.h"
#include "runs/device.h"
#include "train/run_paths.h"

namespace refract {
namespace {

namespace fs = std::filesystem;

// A run's checkpoint holds the settings it was trained with, its transform rules among them.
nlohmann::json saved_settings(const fs::path& folder) {
  const fs::path file = folder / "config.toml";
  if (!fs::exists(file)) return nlohmann::json::object();
  nlohmann::json tree = read_toml(file);
  restore_saved_settings(tree, file);
  return tree;
}

}  // namespace

std::shared_ptr<const Tokenizer> folder_tokenizer(const fs::path& folder) {
  for (const char* name :
       {"tokenizer.json", "vocab.json", "tokenizer.model", "chars.json", "bytes.json"}) {
    if (fs::exists(folder / name)) return open_tokenizer(folder.string());
  }
  return nullptr;
}

// The folder's config.json describes the model; the settings of its training stay where they say
// how to run it.
RunConfig folder_config(const fs::path& folder, const std::vector<std::string>& overrides,
                        const std::string& where) {
  nlohmann::json saved = saved_settings(folder);
  saved.erase("model");
  saved.erase("init");
  saved.erase("self_guided");  // a saved model has no guides
  saved.erase("distill");      // and no teacher
  merge_overrides(saved, overrides);
  const ModelConfig base = read_model_config(folder);
  RunConfig config = make_run_config(saved, where, &base);
  if (!sets_key(saved, "data.context")) config.data.context = config.model.max_position_embeddings;
  return config;
}

std::string folder_origin(const fs::path& folder) {
  const nlohmann::json saved = saved_settings(folder);
  return sets_key(saved, "init.from") ? saved["init"]["from"].get<std::string>() : "random";
}

fs::path premerge_file(const fs::path& folder) {
  const bool checkpoint = folder.parent_path().filename() == "checkpoints";
  return (checkpoint ? folder.parent_path().parent_path() : folder) / "premerge.toml";
}

PremergeSettings premerge_settings(const RunConfig& config, const fs::path& folder,
                                   at::Device device) {
  PremergeSettings settings;
  settings.mode = config.decode.premerge;
  if (!folder.empty()) settings.table = PremergeTable::read(premerge_file(folder));
  settings.device = device_key(device);
  settings.precision = config.train.precision;
  settings.default_tokens = default_premerge_tokens(device.is_cuda());
  return settings;
}

}  // namespace refract
