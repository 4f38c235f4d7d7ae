// The tokenizer interface and how one is opened.
#pragma once
#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace refract {

using TokenId = int32_t;

class Tokenizer {
 public:
  virtual ~Tokenizer() = default;

  // Ids of one document without special tokens added around it. Special tokens that stand in the
  // text are recognised where `parse_special` is set. Invalid UTF-8 is replaced by U+FFFD as
  // Hugging Face does. Safe to call from several threads.
  virtual std::vector<TokenId> encode(std::string_view text, bool parse_special = true) const = 0;

  // Bytes of a sequence of ids; what is not valid UTF-8 by itself is returned as the bytes it is.
  virtual std::string decode(std::span<const TokenId> ids) const = 0;

  // Number of ids, the largest id plus one.
  virtual int64_t vocab_size() const = 0;

  // Written between documents; none for a tokenizer that has no such token (characters).
  virtual std::optional<TokenId> end_of_text() const = 0;

  // Writes what is needed to open this tokenizer again with open_tokenizer(folder).
  virtual void save(const std::filesystem::path& folder) const = 0;

  // A short name for logs: "bytes", "chars (65)", "byte-level BPE (50257)".
  virtual std::string description() const = 0;
};

// Opens "bytes", a folder or a file: tokenizer.json, vocab.json (+ merges.txt beside it),
// tokenizer.model, or our own chars.json. Errors name what was looked for.
std::unique_ptr<Tokenizer> open_tokenizer(const std::string& specification);

// The characters (Unicode code points) of a text in ascending code point order, as
// sorted(set(text)) in Python.
std::unique_ptr<Tokenizer> make_char_tokenizer(std::string_view text);

// Encodes many documents with `threads` threads (0: all cores); results in the order of the input.
std::vector<std::vector<TokenId>> encode_all(const Tokenizer& tokenizer,
                                             std::span<const std::string_view> documents,
                                             int threads = 0);

}  // namespace refract
