#include "text/hf_tokenizer.h"

#include <fmt/format.h>

#include <mutex>
#include <nlohmann/json.hpp>
#include <optional>

#include "core/error.h"
#include "core/files.h"
#include "core/untrusted.h"
#include "text/bpe/marked_spaces.h"
#include "text/gpt2_files.h"
#include "text/hf_components.h"
#include "text/hf_settings.h"
#include "text/json_trouble.h"
#include "text/utf8.h"

namespace refract {
namespace {

using nlohmann::json;

json entry_of(const AddedToken& token) {
  return {{"id", token.id},          {"content", token.content}, {"single_word", token.single_word},
          {"lstrip", token.lstrip},  {"rstrip", token.rstrip},   {"normalized", token.normalized},
          {"special", token.special}};
}

class HfTokenizer final : public Tokenizer {
 public:
  HfTokenizer(TokenizerFiles files, const std::string& where, const std::string& config_json)
      : files_(std::move(files)) {
    const TokenizerSettings settings = read_tokenizer_settings(files_, config_json, where);
    class_ = settings.tokenizer_class;
    const bool made = !files_.contains("tokenizer.json");
    if (made) {
      files_["tokenizer.json"] =
          gpt2_tokenizer_json(files_.at("vocab.json"), files_.at("merges.txt"), class_, where);
    }
    json file = parse_json(files_.at("tokenizer.json"), where);
    const auto part = [&](const char* key) { return file.contains(key) ? file.at(key) : json(); };
    std::optional<bool> prefix;
    if (sets_prefix_space(class_) || made) prefix = settings.add_prefix_space.value_or(false);
    if (falls_back_to_bytes(part("model"))) {
      marks_.emplace(file, where);
    } else {
      nfc_ = read_normalizer(part("normalizer"), where);
      pre_tokenizer_ = read_pre_tokenizer(part("pre_tokenizer"), where, prefix);
      check_decoder(part("decoder"), where);
    }
    BpeParts bpe = read_bpe(part("model"), where);
    std::vector<AddedToken> added = all_added(bpe, part("added_tokens"), settings, where);
    if (made) keep_settings(std::move(file), added, *prefix);
    fill_token_bytes(bpe, added);
    for (AddedToken& token : added) {
      std::string storage;
      std::string pattern(token.normalized ? normalized(token.content, storage) : token.content);
      auto& finder = token.normalized ? normalized_tokens_ : plain_tokens_;
      finder.add(std::move(pattern), std::move(token));
    }
    model_ = std::make_unique<BpeModel>(std::move(bpe.byte_vocabulary), bpe.merges, bpe.options);
  }

  std::vector<TokenId> encode(std::string_view text, bool parse_special) const override {
    const Lease scratch(*this);
    std::vector<TokenId> ids;
    ids.reserve(text.size() / 4 + 4);
    std::string repaired, storage;
    text = as_valid_utf8(text, repaired);
    std::vector<AddedTokenFinder::Part> outer, inner;
    plain_tokens_.split(text, parse_special, outer);
    auto word_sink = [&](std::string_view word) { model_->encode_word(word, *scratch->bpe, ids); };
    for (const auto& part : outer) {
      if (part.token) {
        ids.push_back(part.token->id);
        continue;
      }
      inner.clear();
      const std::string_view piece = normalized(part.text, storage);
      const bool first = part.text.data() == text.data();
      normalized_tokens_.split(piece, parse_special, inner);
      for (const auto& sub : inner) {
        if (sub.token) {
          ids.push_back(sub.token->id);
        } else if (marks_) {
          marks_->split(sub.text, first && sub.text.data() == piece.data(), WordSink(word_sink));
        } else {
          pre_tokenizer_.split(sub.text, scratch->pre_tokenizer, WordSink(word_sink));
        }
      }
    }
    return ids;
  }

  std::string decode(std::span<const TokenId> ids) const override {
    std::string out;
    for (const TokenId id : ids) {
      if (id >= 0 && static_cast<size_t>(id) < known_.size() && known_[static_cast<size_t>(id)]) {
        out += token_bytes_[static_cast<size_t>(id)];
      } else {
        append_utf8(out, 0xFFFD);
      }
    }
    if (marks_ && marks_->strips_first_space() && out.starts_with(' ')) out.erase(0, 1);
    return out;
  }

  int64_t vocab_size() const override { return static_cast<int64_t>(token_bytes_.size()); }
  std::optional<TokenId> end_of_text() const override { return end_of_text_; }

  void save(const std::filesystem::path& folder) const override {
    for (const auto& [name, bytes] : files_) {
      std::filesystem::create_directories((folder / name).parent_path());
      write_file_atomically(folder / name, bytes);
    }
    if (files_.contains("tokenizer_config.json")) return;
    // What transformers needs to open the folder without a config.json.
    json config = {{"tokenizer_class", class_.empty() ? "PreTrainedTokenizerFast" : class_},
                   {"clean_up_tokenization_spaces", false}};
    if (end_of_text_) config["eos_token"] = end_of_text_name_;
    write_file_atomically(folder / "tokenizer_config.json", config.dump(2) + "\n");
  }

  std::string description() const override {
    return fmt::format("{} BPE ({})", marks_ ? "character" : "byte-level", vocab_size());
  }

 private:
  struct Scratch {
    BpeModel::ScratchPtr bpe;
    PreTokenizer::Scratch pre_tokenizer;
  };

  // Borrows working memory from the pool, so that caches survive between documents and no two
  // threads share.
  class Lease {
   public:
    explicit Lease(const HfTokenizer& owner) : owner_(owner) {
      {
        const std::lock_guard lock(owner_.mutex_);
        if (!owner_.pool_.empty()) {
          scratch_ = std::move(owner_.pool_.back());
          owner_.pool_.pop_back();
          return;
        }
      }
      scratch_ = std::make_unique<Scratch>(
          Scratch{BpeModel::make_scratch(), PreTokenizer::Scratch(owner_.pre_tokenizer_)});
    }
    ~Lease() {
      const std::lock_guard lock(owner_.mutex_);
      owner_.pool_.push_back(std::move(scratch_));
    }
    Lease(const Lease&) = delete;
    Lease& operator=(const Lease&) = delete;
    Scratch* operator->() const { return scratch_.get(); }

   private:
    const HfTokenizer& owner_;
    std::unique_ptr<Scratch> scratch_;
  };

  // What is encoded of a stretch between added tokens, which may stand in `storage`.
  std::string_view normalized(std::string_view stretch, std::string& storage) const {
    if (nfc_) return normalize_nfc(stretch, storage);
    if (!marks_) return stretch;
    storage = marks_->normalize(stretch);
    return storage;
  }

  void set_token(TokenId id, std::string bytes) {
    const auto index = static_cast<size_t>(id);
    if (index >= token_bytes_.size()) {
      token_bytes_.resize(index + 1);
      known_.resize(index + 1);
    }
    token_bytes_[index] = std::move(bytes);
    known_[index] = true;
  }

  void fill_token_bytes(const BpeParts& bpe, const std::vector<AddedToken>& added) {
    for (const auto& [token, id] : bpe.vocabulary)
      set_token(id, marks_ ? marks_->bytes_of(token) : token);
    if (!marks_) {
      for (const auto& [bytes, id] : bpe.byte_vocabulary) set_token(id, bytes);
    }
    for (const AddedToken& token : added) {
      // One that is found in the normalized text stands for the space that it is found with.
      const bool marked = marks_ && token.normalized;
      set_token(token.id,
                marked ? marks_->bytes_of(marks_->normalize(token.content)) : token.content);
    }
  }

  // The tokens of the file and of the files beside it, with their ids.
  std::vector<AddedToken> all_added(const BpeParts& bpe, const json& own,
                                    const TokenizerSettings& settings, const std::string& where) {
    const auto lookup = [&](const std::string& token) -> std::optional<TokenId> {
      const auto found = bpe.vocabulary.find(token);
      return found == bpe.vocabulary.end() ? std::nullopt : std::optional(found->second);
    };
    AddedVocabulary vocabulary(lookup, static_cast<TokenId>(bpe.vocabulary.size()));
    for (const AddedToken& token : read_added_tokens(own, where)) vocabulary.add(token);
    if (const auto name = add_special_tokens(settings, vocabulary)) {
      end_of_text_ = vocabulary.find(*name);
      end_of_text_name_ = *name;
    }
    return vocabulary.tokens();
  }

  // A tokenizer.json that we write says itself what the files beside it add.
  void keep_settings(json file, const std::vector<AddedToken>& added, bool add_prefix_space) {
    file["added_tokens"] = json::array();
    for (const AddedToken& token : added) file["added_tokens"].push_back(entry_of(token));
    json& pre_tokenizer = file["pre_tokenizer"];
    json& byte_level = pre_tokenizer.contains("pretokenizers")
                           ? pre_tokenizer["pretokenizers"].back()
                           : pre_tokenizer;
    byte_level["add_prefix_space"] = add_prefix_space;
    files_["tokenizer.json"] = file.dump();
  }

  TokenizerFiles files_;
  std::string class_;  // of transformers
  bool nfc_ = false;
  std::optional<MarkedSpaces> marks_;  // of a BPE over characters
  PreTokenizer pre_tokenizer_;
  std::unique_ptr<BpeModel> model_;
  AddedTokenFinder plain_tokens_, normalized_tokens_;
  std::vector<std::string> token_bytes_;  // by id
  std::vector<bool> known_;               // ids may have gaps
  std::optional<TokenId> end_of_text_;
  std::string end_of_text_name_;
  mutable std::mutex mutex_;
  mutable std::vector<std::unique_ptr<Scratch>> pool_;
};

}  // namespace

bool is_sentencepiece_translation(std::string_view tokenizer_json) {
  const json parsed = try_parse_json(tokenizer_json).value_or(json());
  if (!parsed.is_object() || !parsed.contains("model") || !parsed["model"].is_object())
    return false;
  const json& model = parsed["model"];
  return model.value("type", json()) == "Unigram" || falls_back_to_bytes(model);
}

std::unique_ptr<Tokenizer> make_hf_tokenizer(std::map<std::string, std::string> files,
                                             const std::string& where,
                                             const std::string& config_json) {
  try {
    return std::make_unique<HfTokenizer>(std::move(files), where, config_json);
  } catch (const json::exception& error) {
    fail("{}: not a valid tokenizer.json: {}", where, json_trouble(error));
  }
}

}  // namespace refract
