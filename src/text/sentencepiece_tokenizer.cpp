#include "text/sentencepiece_tokenizer.h"

#include <fmt/format.h>
#include <sentencepiece_processor.h>

#include "core/error.h"
#include "core/files.h"
#include "core/untrusted.h"
#include "text/sentencepiece_check.h"
#include "text/utf8.h"

namespace refract {
namespace {

class SentencePieceTokenizer final : public Tokenizer {
 public:
  SentencePieceTokenizer(std::string model, const std::string& where) : model_(std::move(model)) {
    check_sentencepiece(model_, where);
    const auto status = processor_.LoadFromSerializedProto(model_);
    if (!status.ok()) fail("{}: not a SentencePiece model: {}", where, shown(status.ToString()));
  }

  std::vector<TokenId> encode(std::string_view text, bool) const override {
    std::string repaired;
    text = as_valid_utf8(text, repaired);
    std::vector<int> ids;
    const auto status = processor_.Encode({text.data(), text.size()}, &ids);
    if (!status.ok()) fail("SentencePiece could not encode a text: {}", shown(status.ToString()));
    return {ids.begin(), ids.end()};
  }

  std::string decode(std::span<const TokenId> ids) const override {
    std::vector<int> known;
    known.reserve(ids.size());
    for (const TokenId id : ids) {
      const bool valid = id >= 0 && id < processor_.GetPieceSize();
      known.push_back(valid ? id : processor_.unk_id());
    }
    std::string out;
    const auto status = processor_.Decode(known, &out);
    if (!status.ok()) fail("SentencePiece could not decode: {}", shown(status.ToString()));
    return out;
  }

  int64_t vocab_size() const override { return processor_.GetPieceSize(); }

  std::optional<TokenId> end_of_text() const override {
    if (processor_.eos_id() < 0) return std::nullopt;
    return processor_.eos_id();
  }

  void save(const std::filesystem::path& folder) const override {
    std::filesystem::create_directories(folder);
    write_file_atomically(folder / "tokenizer.model", model_);
  }

  std::string description() const override {
    return fmt::format("SentencePiece ({})", vocab_size());
  }

 private:
  std::string model_;
  sentencepiece::SentencePieceProcessor processor_;
};

}  // namespace

std::unique_ptr<Tokenizer> make_sentencepiece_tokenizer(std::string model,
                                                        const std::string& where) {
  return std::make_unique<SentencePieceTokenizer>(std::move(model), where);
}

}  // namespace refract
