#include "runs/model_folder.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "core/error.h"
#include "core/gguf/gguf_header.h"
#include "core/toml.h"
#include "core/untrusted.h"
#include "formats/hf_config.h"
#include "runs/device.h"
#include "text/gguf/gguf_tokenizer.h"
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

// What an id says, without the space in front, which readers of one file treat in different ways.
std::string word_of(const Tokenizer& tokenizer, TokenId id) {
  std::string text = tokenizer.decode({&id, 1});
  if (text.size() > 1 && text.front() == ' ') text.erase(0, 1);
  return text;
}

// Nothing, "<s>", or what SentencePiece writes for an unknown piece: readers differ in these, too.
bool is_special(const std::string& word) {
  return word.empty() || (word.front() == '<' && word.back() == '>') ||
         word.find("\u2047") != std::string::npos;
}

}  // namespace

std::shared_ptr<const Tokenizer> folder_tokenizer(const fs::path& folder) {
  if (is_gguf_file(folder)) return find_gguf_tokenizer(folder);
  for (const char* name :
       {"tokenizer.json", "vocab.json", "tokenizer.model", "chars.json", "bytes.json"}) {
    if (fs::exists(folder / name)) return open_tokenizer(folder.string());
  }
  return nullptr;
}

void check_tokenizer_of_model(const fs::path& folder, const Tokenizer& named,
                              const std::string& name) {
  const std::shared_ptr<const Tokenizer> own = folder_tokenizer(folder);
  if (!own) return;
  const int64_t both = std::min(own->vocab_size(), named.vocab_size());
  for (TokenId id = 0; id < both; ++id) {
    const std::string was = word_of(*own, id), is = word_of(named, id);
    if (was == is || is_special(was) || is_special(is)) continue;
    fail_usage(
        "the model in '{}' has a tokenizer of its own ({}), and data.tokenizer = \"{}\" ({}) gives "
        "its ids another meaning (id {} is '{}' there and '{}' here); use the model's: "
        "data.tokenizer={} (or start from a copy of the folder without a tokenizer)",
        folder.string(), own->description(), name, named.description(), id, shown(was), shown(is),
        folder.string());
  }
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
  if (checkpoint) return folder.parent_path().parent_path() / "premerge.toml";
  return (is_gguf_file(folder) ? folder.parent_path() : folder) / "premerge.toml";
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
