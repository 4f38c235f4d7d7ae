#include "text/gguf/gguf_tokenizer.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <utility>

#include "core/error.h"
#include "core/files.h"
#include "core/gguf/gguf_header.h"
#include "core/untrusted.h"
#include "text/gguf/gguf_bpe.h"
#include "text/gguf/gguf_pieces.h"
#include "text/hf_tokenizer.h"
#include "text/sentencepiece/sentencepiece_tokenizer.h"
#include "text/utf8.h"

namespace refract {
namespace {

using nlohmann::json;

constexpr const char* kHuggingFace = "tokenizer.huggingface.json";

// Special tokens: their name in tokenizer_config.json, and the setting with the id.
constexpr std::pair<const char*, const char*> kSpecialIds[] = {
    {"bos_token", "tokenizer.ggml.bos_token_id"},
    {"eos_token", "tokenizer.ggml.eos_token_id"},
    {"unk_token", "tokenizer.ggml.unknown_token_id"},
    {"pad_token", "tokenizer.ggml.padding_token_id"}};

std::string model_of(const GgufMetadata& settings) {
  return settings.text("tokenizer.ggml.model", "");
}

// The tokens' texts, each valid and there once.
GgufVocabulary read_vocabulary(const GgufMetadata& settings) {
  GgufVocabulary vocabulary;
  vocabulary.tokens = settings.texts("tokenizer.ggml.tokens");
  vocabulary.types = settings.wholes("tokenizer.ggml.token_type");
  vocabulary.merges = settings.texts("tokenizer.ggml.merges");
  if (vocabulary.tokens.empty()) settings.complain("tokenizer.ggml.tokens", "a list of tokens");
  if (!vocabulary.types.empty() && vocabulary.types.size() != vocabulary.tokens.size())
    settings.complain(
        "tokenizer.ggml.token_type",
        fmt::format("a list of {} kinds, one for each token", vocabulary.tokens.size()));
  for (size_t i = 0; i < vocabulary.tokens.size(); ++i) {
    if (vocabulary.tokens[i].empty() || !is_valid_utf8(vocabulary.tokens[i]))
      fail("'{}': the token {} is '{}', which is not a text in UTF-8", settings.where(), i,
           shown(vocabulary.tokens[i]));
  }
  return vocabulary;
}

std::optional<int64_t> special_id(const GgufMetadata& settings, const char* key, size_t tokens) {
  if (!settings.has(key)) return std::nullopt;
  const int64_t id = settings.whole(key);
  if (id < 0 || static_cast<size_t>(id) >= tokens)
    settings.complain(key, fmt::format("one of the ids 0 to {} of its tokens", tokens - 1));
  return id;
}

// Control tokens, so that they are found in a text.
json added_decoder(const GgufVocabulary& vocabulary) {
  json added = json::object();
  for (size_t i = 0; i < vocabulary.types.size(); ++i) {
    if (vocabulary.types[i] != kGgufControl) continue;
    added[std::to_string(i)] = {
        {"content", std::string(vocabulary.tokens[i])}, {"normalized", false}, {"special", true}};
  }
  return added;
}

json tokenizer_config(const GgufMetadata& settings, const GgufVocabulary& vocabulary,
                      bool sentencepiece) {
  json config = {{"clean_up_tokenization_spaces", false}};
  for (const auto& [name, key] : kSpecialIds) {
    if (const auto id = special_id(settings, key, vocabulary.tokens.size()))
      config[name] = std::string(vocabulary.tokens[static_cast<size_t>(*id)]);
  }
  if (!sentencepiece) {
    config["tokenizer_class"] = "PreTrainedTokenizerFast";
    return config;
  }
  config["tokenizer_class"] = "LlamaTokenizer";
  config["legacy"] = settings.flag(kGgufLegacy, false);
  config["add_bos_token"] = settings.flag("tokenizer.ggml.add_bos_token", true);
  config["add_eos_token"] = settings.flag("tokenizer.ggml.add_eos_token", false);
  config["add_prefix_space"] = settings.flag("tokenizer.ggml.add_space_prefix", true);
  config["added_tokens_decoder"] = added_decoder(vocabulary);
  return config;
}

// The text of the first token of a document, where one is put there.
std::string first_token(const GgufMetadata& settings, const GgufVocabulary& vocabulary,
                        bool otherwise) {
  const auto id = special_id(settings, "tokenizer.ggml.bos_token_id", vocabulary.tokens.size());
  const bool added = settings.flag("tokenizer.ggml.add_bos_token", otherwise);
  return id && added ? std::string(vocabulary.tokens[static_cast<size_t>(*id)]) : "";
}

TokenizerFiles bpe_files(const GgufMetadata& settings, const GgufVocabulary& vocabulary) {
  TokenizerFiles files;
  if (settings.has(kHuggingFace)) {
    files["tokenizer.json"] = settings.text(kHuggingFace, "");
  } else {
    // Without them every text would fall into single bytes, and nobody would be told.
    if (!settings.has("tokenizer.ggml.merges"))
      fail(
          "'{}': its byte-level BPE has no tokenizer.ggml.merges; name the model's own tokenizer "
          "with data.tokenizer",
          settings.where());
    const GgufFront front = gguf_front(settings.text("tokenizer.ggml.pre", ""), settings.where());
    files["tokenizer.json"] = gguf_bpe_json(
        vocabulary, front, first_token(settings, vocabulary, front.adds_bos), settings.where());
  }
  return files;
}

TokenizerFiles piece_files(const GgufMetadata& settings, const GgufVocabulary& vocabulary) {
  GgufPieces pieces;
  const std::vector<float> scores = settings.numbers("tokenizer.ggml.scores");
  if (scores.size() != vocabulary.tokens.size())
    settings.complain(
        "tokenizer.ggml.scores",
        fmt::format("a list of {} numbers, one for each token", vocabulary.tokens.size()));
  if (vocabulary.types.empty())
    settings.complain("tokenizer.ggml.token_type", "there, which a SentencePiece model needs");
  for (size_t i = 0; i < scores.size(); ++i)
    pieces.pieces.push_back(
        {std::string(vocabulary.tokens[i]), scores[i], static_cast<int32_t>(vocabulary.types[i])});
  pieces.add_space_prefix = settings.flag("tokenizer.ggml.add_space_prefix", true);
  pieces.remove_extra_spaces = settings.flag("tokenizer.ggml.remove_extra_whitespaces", false);
  const auto id_of = [&](const char* key) {
    return special_id(settings, key, vocabulary.tokens.size());
  };
  pieces.bos = id_of("tokenizer.ggml.bos_token_id");
  pieces.eos = id_of("tokenizer.ggml.eos_token_id");
  pieces.unknown = id_of("tokenizer.ggml.unknown_token_id");
  return {{"tokenizer.model", sentencepiece_model(pieces)}};
}

}  // namespace

bool has_gguf_tokenizer(const GgufMetadata& settings) {
  const std::string model = model_of(settings);
  return !model.empty() && model != "none" && model != "no_vocab";
}

TokenizerFiles gguf_tokenizer_files(const GgufMetadata& settings) {
  const std::string model = model_of(settings);
  if (model != "gpt2" && model != "llama")
    fail(
        "'{}': a tokenizer of tokenizer.ggml.model = '{}' is not supported (gpt2, which is "
        "byte-level BPE, and llama, which is SentencePiece, are)",
        settings.where(), shown(model));
  const bool sentencepiece = model == "llama";
  const GgufVocabulary vocabulary = read_vocabulary(settings);
  TokenizerFiles files =
      sentencepiece ? piece_files(settings, vocabulary) : bpe_files(settings, vocabulary);
  files["tokenizer_config.json"] =
      tokenizer_config(settings, vocabulary, sentencepiece).dump(2) + "\n";
  if (const std::string chat = settings.text("tokenizer.chat_template", ""); !chat.empty())
    files["chat_template.jinja"] = chat;
  return files;
}

std::unique_ptr<Tokenizer> make_gguf_tokenizer(const GgufMetadata& settings) {
  TokenizerFiles files = gguf_tokenizer_files(settings);
  return files.contains("tokenizer.model")
             ? make_sentencepiece_tokenizer(std::move(files), settings.where())
             : make_hf_tokenizer(std::move(files), settings.where());
}

std::unique_ptr<Tokenizer> open_gguf_tokenizer(const std::filesystem::path& path) {
  auto tokenizer = find_gguf_tokenizer(path);
  if (!tokenizer) fail_usage("'{}' holds no tokenizer", path.string());
  return tokenizer;
}

std::unique_ptr<Tokenizer> find_gguf_tokenizer(const std::filesystem::path& path) {
  const MappedFile file(path);
  const GgufHeader header = read_gguf_header(file.bytes(), path);
  if (!has_gguf_tokenizer(header.settings)) return nullptr;
  return make_gguf_tokenizer(header.settings);
}

}  // namespace refract
