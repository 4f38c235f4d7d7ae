#include "text/sentencepiece/sentencepiece_tokenizer.h"

#include <fmt/format.h>
#include <sentencepiece_processor.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "core/error.h"
#include "core/files.h"
#include "core/untrusted.h"
#include "text/added_tokens.h"
#include "text/hf_components.h"
#include "text/hf_settings.h"
#include "text/sentencepiece/sentencepiece_check.h"
#include "text/sentencepiece/space_prefix.h"
#include "text/utf8.h"

namespace refract {
namespace {

using nlohmann::json;
using sentencepiece::SentencePieceProcessor;

// Behind a model: its normalizer_spec (field 3) with add_dummy_prefix (field 3) = false. Fields
// that stand twice in a message are merged, and the later value counts.
constexpr std::string_view kWithoutPrefix("\x1a\x02\x18\x00", 4);

void load(SentencePieceProcessor& processor, const std::string& model, const std::string& where) {
  const auto status = processor.LoadFromSerializedProto(model);
  if (!status.ok()) fail("{}: not a SentencePiece model: {}", where, shown(status.ToString()));
}

class SentencePieceTokenizer final : public Tokenizer {
 public:
  SentencePieceTokenizer(TokenizerFiles files, const std::string& where,
                         const std::string& config_json)
      : files_(std::move(files)) {
    const std::string& model = files_.at("tokenizer.model");
    check_sentencepiece(model, where);
    load(whole_, model, where);
    load(inner_, model + std::string(kWithoutPrefix), where);
    const TokenizerSettings settings = read_tokenizer_settings(files_, config_json, where);
    json translation;
    if (const auto file = files_.find("tokenizer.json"); file != files_.end())
      translation = parse_json(file->second, where);
    prefix_ = space_prefix(settings, translation);
    add_tokens(settings, translation, where);
  }

  std::vector<TokenId> encode(std::string_view text, bool parse_special) const override {
    std::string repaired;
    text = as_valid_utf8(text, repaired);
    std::vector<AddedTokenFinder::Part> parts;
    finder_.split(text, parse_special, parts);
    std::vector<TokenId> ids;
    for (const auto& part : parts) {
      if (part.token) {
        ids.push_back(part.token->id);
      } else {
        append_ids(part.text, prefixed(part.text, part.text.data() == text.data()), ids);
      }
    }
    return ids;
  }

  // Pieces are decoded in runs between added tokens; the space before the first piece of all is not
  // part of the text.
  std::string decode(std::span<const TokenId> ids) const override {
    std::string out;
    std::vector<int> run;
    bool first = true;
    const auto finish_run = [&] {
      if (!run.empty()) out += decode_run(run, first && prefix_ != SpacePrefix::kNever);
      first = false;
      run.clear();
    };
    for (const TokenId id : ids) {
      const auto added = content_.find(id);
      if (added == content_.end()) {
        run.push_back(id >= 0 && id < whole_.GetPieceSize() ? id : whole_.unk_id());
        continue;
      }
      finish_run();
      out += added->second;
    }
    finish_run();
    return out;
  }

  int64_t vocab_size() const override { return size_; }

  std::optional<TokenId> end_of_text() const override { return end_of_text_; }

  void save(const std::filesystem::path& folder) const override {
    for (const auto& [name, bytes] : files_) {
      std::filesystem::create_directories((folder / name).parent_path());
      write_file_atomically(folder / name, bytes);
    }
  }

  std::string description() const override {
    return fmt::format("SentencePiece ({})", vocab_size());
  }

 private:
  bool prefixed(std::string_view stretch, bool first) const {
    switch (prefix_) {
      case SpacePrefix::kAlways:
        return true;
      case SpacePrefix::kUnlessSpace:
        return first || !stretch.starts_with(' ');
      case SpacePrefix::kFirst:
        return first;
      case SpacePrefix::kNever:
        break;
    }
    return false;
  }

  void add_tokens(const TokenizerSettings& settings, const json& translation,
                  const std::string& where) {
    const auto lookup = [this](const std::string& token) -> std::optional<TokenId> {
      const int id = whole_.PieceToId(token);
      return whole_.IdToPiece(id) == token ? std::optional(id) : std::nullopt;
    };
    AddedVocabulary vocabulary(lookup, whole_.GetPieceSize());
    if (translation.is_object() && translation.contains("added_tokens")) {
      for (const AddedToken& token : read_added_tokens(translation["added_tokens"], where))
        vocabulary.add(token);
    }
    add_special_tokens(settings, vocabulary);
    if (settings.end_of_text) end_of_text_ = vocabulary.find(*settings.end_of_text);
    if (!end_of_text_ && whole_.eos_id() >= 0) end_of_text_ = whole_.eos_id();
    size_ = whole_.GetPieceSize();
    for (const AddedToken& token : vocabulary.tokens()) {
      size_ = std::max<int64_t>(size_, int64_t{token.id} + 1);
      // Pieces of the model, its control symbols among them, are decoded by it.
      if (token.id >= whole_.GetPieceSize()) content_[token.id] = token.content;
      finder_.add(token.content, token);
    }
  }

  void append_ids(std::string_view text, bool prefixed, std::vector<TokenId>& ids) const {
    std::vector<int> found;
    const auto status = (prefixed ? whole_ : inner_).Encode({text.data(), text.size()}, &found);
    if (!status.ok()) fail("SentencePiece could not encode a text: {}", status.ToString());
    ids.insert(ids.end(), found.begin(), found.end());
  }

  std::string decode_run(const std::vector<int>& run, bool prefixed) const {
    std::string out;
    const auto status = (prefixed ? whole_ : inner_).Decode(run, &out);
    if (!status.ok()) fail("SentencePiece could not decode: {}", status.ToString());
    return out;
  }

  TokenizerFiles files_;
  SentencePieceProcessor whole_, inner_;  // inner_ puts no space before a text
  SpacePrefix prefix_ = SpacePrefix::kFirst;
  AddedTokenFinder finder_;
  std::map<TokenId, std::string> content_;  // of added tokens behind the model's pieces
  int64_t size_ = 0;
  std::optional<TokenId> end_of_text_;
};

}  // namespace

std::unique_ptr<Tokenizer> make_sentencepiece_tokenizer(std::map<std::string, std::string> files,
                                                        const std::string& where,
                                                        const std::string& config_json) {
  try {
    return std::make_unique<SentencePieceTokenizer>(std::move(files), where, config_json);
  } catch (const json::exception& error) {
    fail("{}: not a valid tokenizer: {}", where, error.what());
  }
}

}  // namespace refract
