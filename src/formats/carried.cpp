#include "formats/carried.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <set>

#include "core/error.h"
#include "core/files.h"
#include "core/gguf/gguf_header.h"
#include "core/log.h"
#include "core/untrusted.h"
#include "formats/families/families.h"

namespace refract {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

constexpr uintmax_t kLargest = 64 << 20;
constexpr const char* kIds[] = {"bos_token_id", "eos_token_id", "pad_token_id"};
constexpr const char* kGeneration = "generation_config.json";
// In Carried::config where its ids count for nothing. It is never written.
constexpr const char* kWithoutIds = "refract_without_ids";

// Weights, whoever wrote them.
bool is_weights(const fs::path& file) {
  static const std::set<std::string> extensions = {
      ".safetensors", ".bin", ".pt",  ".pth",  ".ckpt", ".h5",    ".msgpack",
      ".ot",          ".npz", ".pkl", ".onnx", ".gguf", ".tflite"};
  return extensions.contains(file.extension().string()) ||
         file.filename().string().ends_with(".index.json");
}

// What the tokenizer saves, what save_model() and a run write, and an adapter, which is no part of
// the model that is written.
bool is_written_elsewhere(const std::string& name) {
  static const std::set<std::string> names = {"config.json",
                                              "generation_config.json",
                                              "tokenizer.json",
                                              "vocab.json",
                                              "merges.txt",
                                              "tokenizer.model",
                                              "tokenizer_config.json",
                                              "added_tokens.json",
                                              "special_tokens_map.json",
                                              "chat_template.json",
                                              "chat_template.jinja",
                                              "chars.json",
                                              "bytes.json",
                                              "config.toml",
                                              "transforms.toml",
                                              "premerge.toml",
                                              "metrics.jsonl",
                                              "samples.jsonl",
                                              "log.txt",
                                              "report.html",
                                              "adapter_config.json"};
  return names.contains(name);
}

json parse_config(const std::string& text, const char* name) {
  json tree = try_parse_json(text).value_or(json());
  if (!tree.is_object()) fail("the model's {} is not JSON with one object", name);
  return tree;
}

std::vector<int64_t> ids_in(const json& tree, const char* key, const char* name) {
  if (!tree.contains(key) || tree[key].is_null()) return {};
  const json list = tree[key].is_array() ? tree[key] : json::array({tree[key]});
  std::vector<int64_t> ids;
  for (const json& id : list) {
    if (!id.is_number_integer())
      fail("the model's {}: {} = {} is neither an id nor a list of ids", name, key,
           shown(tree[key]));
    ids.push_back(id.get<int64_t>());
  }
  return ids;
}

bool has_ids(const json& tree) {
  return std::any_of(std::begin(kIds), std::end(kIds),
                     [&](const char* key) { return tree.contains(key) && !tree[key].is_null(); });
}

// About the file and its author, or what the writer decides anew.
bool is_about_the_file(const std::string& key) {
  static const std::set<std::string> keys = {
      "_name_or_path", "transformers_version", "auto_map", "architectures", "torch_dtype", "dtype",
      // what a family needs of these is written anew
      "original_max_position_embeddings", "layer_types", kWithoutIds};
  return keys.contains(key);
}

}  // namespace

void Carried::drop_tokenizer() {
  generation.clear();
  if (config.empty()) return;
  json tree = parse_config(config, "config.json");
  for (const char* key : kIds) tree.erase(key);
  tree[kWithoutIds] = true;
  tree.erase("tokenizer_class");
  config = tree.dump();
}

std::vector<int64_t> Carried::eos() const {
  if (!generation.empty()) {
    const json tree = parse_config(generation, kGeneration);
    if (std::vector<int64_t> ids = ids_in(tree, "eos_token_id", kGeneration); !ids.empty())
      return ids;
  }
  if (config.empty()) return {};
  return ids_in(parse_config(config, "config.json"), "eos_token_id", "config.json");
}

Carried read_carried(const fs::path& folder) {
  Carried carried;
  if (is_gguf_file(folder)) {  // its ids are all that it can carry
    carried.config = read_config_json(folder).dump();
    return carried;
  }
  carried.config = read_file(folder / "config.json", "the model's configuration");
  if (const fs::path path = folder / kGeneration; fs::exists(path))
    carried.generation = read_file(path, "the generation settings");
  for (const fs::directory_entry& entry : fs::directory_iterator(folder)) {
    const std::string name = entry.path().filename().string();
    std::error_code error;  // a broken link is no file
    if (name.starts_with('.') || is_written_elsewhere(name) || is_weights(entry.path()) ||
        !entry.is_regular_file(error))
      continue;
    if (entry.file_size() > kLargest) {
      log_warning("'{}' is not carried along: it is larger than 64 MiB", entry.path().string());
      continue;
    }
    carried.files[name] = read_file(entry.path(), "a file of the model");
  }
  // Runs of earlier versions wrote no ids, though their tokenizer has some.
  if (fs::exists(folder / "config.toml") && !has_ids(parse_config(carried.config, "config.json")))
    carried.drop_tokenizer();
  return carried;
}

void carry_config(json& tree, const Carried& carried, const std::string& format) {
  if (carried.config.empty()) return;
  const json source = parse_config(carried.config, "config.json");
  const auto type = source.find("model_type");
  const bool same = type != source.end() && *type == format;
  if (!source.contains(kWithoutIds)) {
    for (const char* key : kIds) {
      if (source.contains(key)) {
        tree[key] = source[key];
      } else if (same && format != "refract") {
        tree.erase(key);  // transformers then takes the family's own, as it does for the source
      }
    }
  }
  if (!same || format == "refract") return;
  for (const auto& [key, value] : source.items()) {
    if (!tree.contains(key) && !is_about_the_file(key) &&
        std::find(std::begin(kIds), std::end(kIds), key) == std::end(kIds))
      tree[key] = value;
  }
}

HfFamily carried_family(const ModelConfig& config, const Carried& carried) {
  if (!carried.config.empty()) {
    const json source = parse_config(carried.config, "config.json");
    const json type = source.value("model_type", json());
    const Family* family = type.is_string() ? find_family(type.get<std::string>()) : nullptr;
    if (family && family->against(config).empty()) return {family->type, ""};
  }
  return hf_family(config);
}

void write_side_files(const Carried& carried, const fs::path& folder) {
  for (const auto& [name, bytes] : carried.files) write_file_atomically(folder / name, bytes);
}

TokenIds ids_of(const Tokenizer& tokenizer) {
  TokenIds ids;
  if (const auto end = tokenizer.end_of_text()) {
    ids.bos = *end;
    ids.eos = {*end};
  }
  return ids;
}

std::vector<TokenId> stop_tokens(const Carried& carried, const Tokenizer& tokenizer) {
  std::vector<TokenId> stop;
  if (const auto end = tokenizer.end_of_text()) stop.push_back(*end);
  for (const int64_t id : carried.eos()) {
    if (id >= 0 && id <= INT32_MAX) stop.push_back(static_cast<TokenId>(id));
  }
  return stop;
}

}  // namespace refract
