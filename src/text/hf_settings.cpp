#include "text/hf_settings.h"

#include <algorithm>
#include <charconv>
#include <nlohmann/json.hpp>
#include <set>
#include <string_view>

#include "core/error.h"
#include "core/untrusted.h"

namespace refract {
namespace {

using nlohmann::json;

constexpr const char* kConfig = "tokenizer_config.json";
constexpr const char* kSpecialMap = "special_tokens_map.json";
constexpr const char* kAdded = "added_tokens.json";

// In the order in which transformers adds them.
constexpr const char* kNames[] = {"bos_token", "eos_token", "unk_token", "sep_token",
                                  "pad_token", "cls_token", "mask_token"};

// Special tokens that a class has where no file names another.
struct ClassTokens {
  const char* tokenizer_class;
  std::map<std::string, std::string> tokens;
};
const std::vector<ClassTokens>& class_tokens() {
  static const std::string end = "<|endoftext|>";
  static const std::vector<ClassTokens> all = {
      {"GPT2Tokenizer", {{"bos_token", end}, {"eos_token", end}, {"unk_token", end}}},
      {"CodeGenTokenizer", {{"bos_token", end}, {"eos_token", end}, {"unk_token", end}}},
      {"GPTNeoXTokenizer",
       {{"bos_token", end}, {"eos_token", end}, {"unk_token", end}, {"pad_token", "<|padding|>"}}},
      {"Qwen2Tokenizer", {{"eos_token", end}, {"unk_token", end}, {"pad_token", end}}},
      {"LlamaTokenizer", {{"bos_token", "<s>"}, {"eos_token", "</s>"}, {"unk_token", "<unk>"}}},
  };
  return all;
}

json parse_table(const std::string& text, const std::string& name, const std::string& where) {
  if (text.empty()) return json::object();
  json table = try_parse_json(text).value_or(json());
  if (!table.is_object()) fail("{}: the {} beside it is not JSON with one object", where, name);
  return table;
}

json table_of(const TokenizerFiles& files, const char* name, const std::string& where) {
  const auto file = files.find(name);
  return parse_table(file == files.end() ? "" : file->second, name, where);
}

std::string text_of(const json& table, const char* key) {
  const auto found = table.find(key);
  return found != table.end() && found->is_string() ? found->get<std::string>() : "";
}

std::string class_of(const json& config, const json& model) {
  std::string name = text_of(config, "tokenizer_class");
  if (name.empty()) name = text_of(model, "tokenizer_class");
  if (name.ends_with("Fast")) name.resize(name.size() - 4);
  if (name == "PreTrainedTokenizer" || name == "TokenizersBackend") return "";
  if (!name.empty()) return name;
  static const std::map<std::string, std::string> by_model = {{"gpt2", "GPT2Tokenizer"},
                                                              {"gpt_neox", "GPTNeoXTokenizer"},
                                                              {"qwen2", "Qwen2Tokenizer"},
                                                              {"qwen3", "Qwen2Tokenizer"}};
  const auto found = by_model.find(text_of(model, "model_type"));
  return found == by_model.end() ? "" : found->second;
}

// The content of a token that is given as text or with its flags; empty for anything else.
std::string content_of(const json& token) {
  if (token.is_string()) return token.get<std::string>();
  return token.is_object() ? text_of(token, "content") : "";
}

// A special token by its name, as text or with its flags.
AddedToken special_token(const json& value, const std::string& where) {
  json entry = value.is_object() ? value : json{{"content", value}};
  entry["special"] = true;
  return read_added_token(entry, where);
}

// The tokens of a model's own: "image_token" and the like, then those of a list or a table.
std::vector<json> further_tokens(const json& named) {
  std::vector<json> all;
  for (const auto& [key, value] : named.items()) {
    const bool usual = std::find(std::begin(kNames), std::end(kNames), key) != std::end(kNames);
    if (!usual && key.ends_with("_token") && value.is_string()) all.push_back(value);
  }
  for (const char* key : {"extra_special_tokens", "additional_special_tokens"}) {
    const auto found = named.find(key);
    if (found == named.end() || !found->is_structured() || found->empty()) continue;
    for (const json& token : *found) all.push_back(token);
    break;
  }
  return all;
}

int64_t index_of(const std::string& text, const std::string& where) {
  int64_t index = -1;
  const char* end = text.data() + text.size();
  const auto [stop, error] = std::from_chars(text.data(), end, index);
  if (error != std::errc() || stop != end || index < 0)
    fail("{}: '{}' in added_tokens_decoder is not an id", where, text);
  return index;
}

using ByIndex = std::map<int64_t, AddedToken>;

ByIndex read_decoder(const json& decoder, const std::string& where) {
  if (!decoder.is_object())
    fail("{}: added_tokens_decoder of {} is not a table of tokens", where, kConfig);
  ByIndex tokens;
  for (const auto& [index, token] : decoder.items())
    tokens[index_of(index, where)] = read_added_token(token, where);
  return tokens;
}

// added_tokens.json, which older versions wrote beside a vocabulary.
ByIndex read_added_file(const json& table, const std::set<std::string>& special,
                        const std::string& where) {
  ByIndex tokens;
  for (const auto& [content, index] : table.items()) {
    if (!index.is_number_integer()) fail("{}: '{}' in {} has no id", where, content, kAdded);
    AddedToken token;
    token.content = content;
    token.special = special.contains(content);
    token.normalized = !token.special;
    tokens[index.get<int64_t>()] = token;
  }
  return tokens;
}

std::set<std::string> contents_of(const json& named) {
  std::set<std::string> contents;
  for (const char* name : kNames) {
    if (named.contains(name)) contents.insert(content_of(named[name]));
  }
  for (const json& token : further_tokens(named)) contents.insert(content_of(token));
  return contents;
}

}  // namespace

const std::vector<std::string>& tokenizer_side_files() {
  static const std::vector<std::string> names = {kConfig, kSpecialMap, kAdded,
                                                 "chat_template.jinja", "chat_template.json"};
  return names;
}

AddedToken read_added_token(const json& entry, const std::string& where) {
  if (!entry.is_object() || !entry.contains("content") || !entry["content"].is_string())
    fail("{}: the added token {} has no content", where, shown(entry));
  AddedToken token;
  token.content = entry.at("content").get<std::string>();
  token.single_word = entry.value("single_word", false);
  token.lstrip = entry.value("lstrip", false);
  token.rstrip = entry.value("rstrip", false);
  token.special = entry.value("special", false);
  token.normalized = entry.value("normalized", !token.special);
  return token;
}

TokenizerSettings read_tokenizer_settings(const TokenizerFiles& files,
                                          const std::string& config_json,
                                          const std::string& where) {
  const json config = table_of(files, kConfig, where);
  json named = config;
  ByIndex by_index;
  if (config.contains("added_tokens_decoder")) {
    by_index = read_decoder(config["added_tokens_decoder"], where);
  } else {  // the older files count only without it
    named.update(table_of(files, kSpecialMap, where));
    by_index = read_added_file(table_of(files, kAdded, where), contents_of(named), where);
  }
  TokenizerSettings settings;
  settings.tokenizer_class = class_of(config, parse_table(config_json, "config.json", where));
  // vocab.json and merges.txt alone are GPT-2's files, with its end of text.
  if (settings.tokenizer_class.empty() && files.contains("merges.txt") &&
      !files.contains("tokenizer.json"))
    settings.tokenizer_class = "GPT2Tokenizer";
  if (config.contains("add_prefix_space") && config["add_prefix_space"].is_boolean())
    settings.add_prefix_space = config["add_prefix_space"].get<bool>();
  settings.legacy = config.contains("legacy") && config["legacy"] == json(true);
  const std::set<std::string> special = contents_of(named);
  for (auto& [index, token] : by_index) {
    token.special |= special.contains(token.content);
    settings.added.push_back(token);
  }
  for (const char* name : kNames) {
    if (named.contains(name) && !content_of(named[name]).empty())
      settings.added.push_back(special_token(named[name], where));
  }
  for (const json& token : further_tokens(named)) {
    if (!content_of(token).empty()) settings.added.push_back(special_token(token, where));
  }
  if (named.contains("eos_token") && !content_of(named["eos_token"]).empty())
    settings.end_of_text = content_of(named["eos_token"]);
  for (const ClassTokens& known : class_tokens()) {
    if (settings.tokenizer_class != known.tokenizer_class) continue;
    for (const auto& [name, content] : known.tokens) {
      if (!named.contains(name)) settings.implied.push_back(special_token(content, where));
    }
  }
  return settings;
}

std::optional<std::string> add_special_tokens(const TokenizerSettings& settings,
                                              AddedVocabulary& vocabulary) {
  for (const AddedToken& token : settings.added) vocabulary.add(token);
  for (const AddedToken& token : settings.implied) {
    if (vocabulary.find(token.content)) vocabulary.add(token);
  }
  if (settings.end_of_text) return settings.end_of_text;
  for (const char* name : {"<|endoftext|>", "<|end_of_text|>", "</s>", "<eos>"}) {
    if (vocabulary.find(name)) return name;
  }
  return std::nullopt;
}

bool sets_prefix_space(const std::string& tokenizer_class) {
  static const std::set<std::string> classes = {"GPT2Tokenizer", "CodeGenTokenizer",
                                                "GPTNeoXTokenizer", "Qwen2Tokenizer"};
  return classes.contains(tokenizer_class);
}

}  // namespace refract
