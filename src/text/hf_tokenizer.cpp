#include "text/hf_tokenizer.h"

#include <fmt/format.h>

#include <mutex>
#include <nlohmann/json.hpp>

#include "core/error.h"
#include "core/files.h"
#include "text/bpe/byte_level.h"
#include "text/hf_components.h"
#include "text/json_trouble.h"
#include "text/utf8.h"

namespace refract {
namespace {

using nlohmann::json;

// The string of "eos_token": "..." or "eos_token": {"content": "..."}.
std::optional<std::string> configured_eos(const std::string& tokenizer_config) {
  const json config = json::parse(tokenizer_config);
  const auto found = config.find("eos_token");
  if (found == config.end()) return std::nullopt;
  if (found->is_string()) return found->get<std::string>();
  if (found->is_object() && found->contains("content")) {
    return found->at("content").get<std::string>();
  }
  return std::nullopt;
}

class HfTokenizer final : public Tokenizer {
 public:
  HfTokenizer(std::map<std::string, std::string> files, const std::string& where)
      : files_(std::move(files)) {
    const json file = json::parse(files_.at("tokenizer.json"));
    const auto part = [&](const char* key) { return file.contains(key) ? file.at(key) : json(); };
    nfc_ = read_normalizer(part("normalizer"), where);
    pre_tokenizer_ = read_pre_tokenizer(part("pre_tokenizer"), where);
    check_decoder(part("decoder"), where);
    BpeParts bpe = read_bpe(part("model"), where);
    std::vector<AddedToken> added = read_added_tokens(part("added_tokens"), bpe.vocabulary, where);
    fill_token_bytes(bpe, added);
    choose_end_of_text(bpe, added, where);
    for (AddedToken& token : added) {
      std::string storage;
      const bool normalize = token.normalized && nfc_;
      std::string pattern(normalize ? normalize_nfc(token.content, storage) : token.content);
      auto& finder = token.normalized ? normalized_tokens_ : plain_tokens_;
      finder.add(std::move(pattern), std::move(token));
    }
    model_ = std::make_unique<BpeModel>(std::move(bpe.byte_vocabulary), bpe.merges, bpe.options);
  }

  std::vector<TokenId> encode(std::string_view text, bool parse_special) const override {
    const Lease scratch(*this);
    std::vector<TokenId> ids;
    ids.reserve(text.size() / 4 + 4);
    std::string repaired, normalized;
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
      const std::string_view piece = nfc_ ? normalize_nfc(part.text, normalized) : part.text;
      normalized_tokens_.split(piece, parse_special, inner);
      for (const auto& sub : inner) {
        if (sub.token) {
          ids.push_back(sub.token->id);
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
    return out;
  }

  int64_t vocab_size() const override { return static_cast<int64_t>(token_bytes_.size()); }
  std::optional<TokenId> end_of_text() const override { return end_of_text_; }

  void save(const std::filesystem::path& folder) const override {
    std::filesystem::create_directories(folder);
    for (const auto& [name, bytes] : files_) write_file_atomically(folder / name, bytes);
    if (files_.contains("tokenizer_config.json")) return;
    // What transformers needs to open the folder without a config.json.
    json config = {{"tokenizer_class", "PreTrainedTokenizerFast"},
                   {"clean_up_tokenization_spaces", false}};
    if (end_of_text_) config["eos_token"] = end_of_text_name_;
    write_file_atomically(folder / "tokenizer_config.json", config.dump(2) + "\n");
  }

  std::string description() const override {
    return fmt::format("byte-level BPE ({})", vocab_size());
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
    for (const auto& [token, id] : bpe.vocabulary) set_token(id, token);
    for (const auto& [bytes, id] : bpe.byte_vocabulary) set_token(id, bytes);
    for (const AddedToken& token : added) set_token(token.id, token.content);
  }

  void choose_end_of_text(const BpeParts& bpe, const std::vector<AddedToken>& added,
                          const std::string& where) {
    const auto id_of = [&](const std::string& token) -> std::optional<TokenId> {
      for (const AddedToken& candidate : added) {
        if (candidate.content == token) return candidate.id;
      }
      const auto found = bpe.vocabulary.find(token);
      return found == bpe.vocabulary.end() ? std::nullopt : std::optional(found->second);
    };
    if (const auto config = files_.find("tokenizer_config.json"); config != files_.end()) {
      if (const auto eos = configured_eos(config->second)) {
        end_of_text_ = id_of(*eos);
        if (!end_of_text_) {
          fail("{}: the eos_token '{}' of tokenizer_config.json is not in the vocabulary", where,
               *eos);
        }
        end_of_text_name_ = *eos;
        return;
      }
    }
    for (const char* name : {"<|endoftext|>", "<|end_of_text|>", "</s>", "<eos>"}) {
      end_of_text_ = id_of(name);
      if (end_of_text_) {
        end_of_text_name_ = name;
        return;
      }
    }
  }

  std::map<std::string, std::string> files_;
  bool nfc_ = false;
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
  const json parsed = json::parse(tokenizer_json, nullptr, /*allow_exceptions=*/false);
  if (!parsed.is_object() || !parsed.contains("model") || !parsed["model"].is_object())
    return false;
  const json& model = parsed["model"];
  return model.value("type", json()) == "Unigram" || model.value("byte_fallback", json()) == true;
}

std::unique_ptr<Tokenizer> make_hf_tokenizer(std::map<std::string, std::string> files,
                                             const std::string& where) {
  try {
    return std::make_unique<HfTokenizer>(std::move(files), where);
  } catch (const json::exception& error) {
    fail("{}: not a valid tokenizer: {}", where, json_trouble(error));
  }
}

}  // namespace refract
