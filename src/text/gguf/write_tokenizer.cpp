#include "text/gguf/write_tokenizer.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <optional>
#include <utility>
#include <vector>

#include "core/untrusted.h"
#include "text/gguf/gguf_pieces.h"
#include "text/gguf/gguf_tokenizer.h"
#include "text/gguf/pre_names.h"
#include "text/hf_tokenizer.h"
#include "text/sentencepiece/space_prefix.h"

namespace refract {
namespace {

using nlohmann::json;

struct WrittenTokens {
  std::vector<std::string> tokens;
  std::vector<int32_t> types;
  std::vector<float> scores;  // of SentencePiece

  // Ids without a token keep these.
  explicit WrittenTokens(int64_t count)
      : types(static_cast<size_t>(count), kGgufUnused), scores(static_cast<size_t>(count)) {
    for (int64_t id = 0; id < count; ++id) tokens.push_back(fmt::format("[PAD{}]", id));
  }
  // Ids that the model has no embedding for can't occur.
  void set(int64_t id, const std::string& token, int32_t type, float score = 0) {
    if (!has(id)) return;
    const auto at = static_cast<size_t>(id);
    tokens[at] = token;
    types[at] = type;
    scores[at] = score;
  }
  bool has(int64_t id) const { return id >= 0 && static_cast<size_t>(id) < tokens.size(); }
};

json tree_of(const TokenizerFiles& files, const char* name) {
  const auto file = files.find(name);
  json tree = file == files.end() ? json() : try_parse_json(file->second).value_or(json());
  return tree.is_object() ? tree : json::object();
}

void set_added(WrittenTokens& written, const json& id, const json& token) {
  if (!token.is_object() || !id.is_number_integer() || !token.value("content", json()).is_string())
    return;
  written.set(id.get<int64_t>(), token["content"].get<std::string>(),
              token.value("special", false) ? kGgufControl : kGgufUserDefined);
}

// Those that tokenizer.json and tokenizer_config.json name, the latter last as it is read.
void set_all_added(WrittenTokens& written, const json& tokenizer, const json& config) {
  for (const json& token : tokenizer.value("added_tokens", json::array()))
    set_added(written, token.is_object() ? token.value("id", json()) : json(), token);
  const json decoder = config.value("added_tokens_decoder", json::object());
  if (!decoder.is_object()) return;
  for (const auto& [id, token] : decoder.items())
    set_added(written, try_parse_json(id).value_or(json()), token);
}

// Whether a text gets a special token in front.
bool adds_first(const json& processor) {
  if (!processor.is_object()) return false;
  const std::string type = processor.value("type", "");
  if (type == "Sequence") {
    const json members = processor.value("processors", json::array());
    return std::any_of(members.begin(), members.end(), adds_first);
  }
  const json single = processor.value("single", json::array());
  return type == "TemplateProcessing" && single.is_array() && !single.empty() &&
         single[0].is_object() && single[0].contains("SpecialToken");
}

std::vector<std::string> written_merges(const json& model, const WrittenTokens& written) {
  const json vocab = model.value("vocab", json::object());
  std::vector<std::string> merges;
  for (const json& merge : model.value("merges", json::array())) {
    std::string text = merge.is_array()
                           ? merge.at(0).get<std::string>() + " " + merge.at(1).get<std::string>()
                           : merge.get<std::string>();
    std::string joined = text;
    joined.erase(joined.find(' '), 1);
    if (written.has(vocab.value(joined, int64_t{-1}))) merges.push_back(std::move(text));
  }
  return merges;
}

void add_tokens(GgufMetadataWriter& settings, const WrittenTokens& written) {
  settings.add_texts("tokenizer.ggml.tokens", written.tokens);
  settings.add_wholes("tokenizer.ggml.token_type", written.types);
}

std::string add_bpe(GgufMetadataWriter& settings, const TokenizerFiles& files, int64_t vocab_size) {
  const json tokenizer = tree_of(files, "tokenizer.json");
  const json& model = tokenizer.at("model");
  WrittenTokens written(vocab_size);
  for (const auto& [token, id] : model.at("vocab").items())
    written.set(id.get<int64_t>(), token, kGgufNormal);
  set_all_added(written, tokenizer, tree_of(files, "tokenizer_config.json"));
  const std::string pre = gguf_pre_name(tokenizer);
  settings.add_text("tokenizer.ggml.model", "gpt2");
  settings.add_text("tokenizer.ggml.pre", pre.empty() ? "default" : pre);
  add_tokens(settings, written);
  settings.add_texts("tokenizer.ggml.merges", written_merges(model, written));
  settings.add_flag("tokenizer.ggml.add_bos_token",
                    adds_first(tokenizer.value("post_processor", json())));
  settings.add_text("tokenizer.huggingface.json", files.at("tokenizer.json"));
  if (!pre.empty()) return "";
  return "GGUF has no name for how its tokenizer cuts text, so other programs may cut it otherwise";
}

std::string add_pieces(GgufMetadataWriter& settings, const TokenizerFiles& files,
                       const GgufPieces& pieces, int64_t vocab_size, SpacePrefix prefix) {
  const json config = tree_of(files, "tokenizer_config.json");
  WrittenTokens written(vocab_size);
  set_all_added(written, tree_of(files, "tokenizer.json"), config);
  for (size_t i = 0; i < pieces.pieces.size(); ++i) {
    const GgufPiece& piece = pieces.pieces[i];
    written.set(static_cast<int64_t>(i), piece.text, piece.type, piece.score);
  }
  settings.add_text("tokenizer.ggml.model", "llama");
  settings.add_text("tokenizer.ggml.pre", "default");
  add_tokens(settings, written);
  settings.add_numbers("tokenizer.ggml.scores", written.scores);
  const auto flag = [&](const char* key, bool otherwise) {
    const json value = config.value(key, json());
    return value.is_boolean() ? value.get<bool>() : otherwise;
  };
  settings.add_flag("tokenizer.ggml.add_bos_token", flag("add_bos_token", true));
  settings.add_flag("tokenizer.ggml.add_eos_token", flag("add_eos_token", false));
  const bool prefixed = pieces.add_space_prefix && prefix != SpacePrefix::kNever;
  settings.add_flag("tokenizer.ggml.add_space_prefix", prefixed);
  settings.add_flag("tokenizer.ggml.remove_extra_whitespaces", pieces.remove_extra_spaces);
  if (prefixed && prefix == SpacePrefix::kUnlessSpace) settings.add_flag(kGgufLegacy, true);
  if (!prefixed || prefix != SpacePrefix::kAlways) return "";
  return "GGUF has no place for the space that its tokenizer puts behind every special token, so a "
         "text that goes on there is cut otherwise";
}

void add_chat_template(GgufMetadataWriter& settings, const TokenizerFiles& files) {
  std::string chat;
  if (const auto file = files.find("chat_template.jinja"); file != files.end()) {
    chat = file->second;
  } else if (const json own =
                 tree_of(files, "tokenizer_config.json").value("chat_template", json());
             own.is_string()) {
    chat = own.get<std::string>();
  }
  if (!chat.empty()) settings.add_text("tokenizer.chat_template", chat);
}

}  // namespace

std::string add_gguf_tokenizer(GgufMetadataWriter& settings, const TokenizerFiles& files,
                               int64_t vocab_size, const std::string& config_json) {
  add_chat_template(settings, files);
  const auto model = files.find("tokenizer.model"), whole = files.find("tokenizer.json");
  if (whole != files.end() && !is_sentencepiece_translation(whole->second))
    return add_bpe(settings, files, vocab_size);
  if (model != files.end()) {
    if (const auto pieces = read_sentencepiece_model(model->second, "tokenizer.model")) {
      const json translation = whole == files.end() ? json() : tree_of(files, "tokenizer.json");
      const SpacePrefix prefix =
          space_prefix(read_tokenizer_settings(files, config_json, "the tokenizer"), translation);
      return add_pieces(settings, files, *pieces, vocab_size, prefix);
    }
  }
  settings.add_text("tokenizer.ggml.model", "none");
  return "GGUF has no place for its tokenizer, which is left out; name it with data.tokenizer "
         "where "
         "the file is used";
}

}  // namespace refract
