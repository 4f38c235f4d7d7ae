#include "text/simple_tokenizers.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <unordered_map>

#include "core/error.h"
#include "core/files.h"
#include "core/untrusted.h"
#include "text/json_trouble.h"
#include "text/utf8.h"

namespace refract {
namespace {

class ByteTokenizer final : public Tokenizer {
 public:
  static constexpr TokenId kEndOfText = 256;

  // Bytes are what they are: nothing is repaired and no text is special.
  std::vector<TokenId> encode(std::string_view text, bool) const override {
    std::vector<TokenId> ids(text.size());
    for (size_t i = 0; i < text.size(); ++i) ids[i] = static_cast<unsigned char>(text[i]);
    return ids;
  }

  // The end of text has no bytes.
  std::string decode(std::span<const TokenId> ids) const override {
    std::string out;
    for (const TokenId id : ids) {
      if (id >= 0 && id < 256) {
        out.push_back(static_cast<char>(id));
      } else if (id != kEndOfText) {
        append_utf8(out, 0xFFFD);
      }
    }
    return out;
  }

  int64_t vocab_size() const override { return 257; }
  std::optional<TokenId> end_of_text() const override { return kEndOfText; }
  void save(const std::filesystem::path& folder) const override {
    std::filesystem::create_directories(folder);
    write_file_atomically(folder / "bytes.json", "{\"type\": \"bytes\"}\n");
  }
  std::string description() const override { return "bytes"; }
};

class CharTokenizer final : public Tokenizer {
 public:
  explicit CharTokenizer(std::u32string characters) : characters_(std::move(characters)) {
    low_.fill(-1);
    for (size_t i = 0; i < characters_.size(); ++i) {
      const char32_t c = characters_[i];
      (c < low_.size() ? low_[c] : high_[c]) = static_cast<TokenId>(i);
    }
  }

  std::vector<TokenId> encode(std::string_view text, bool) const override {
    std::string repaired;
    text = as_valid_utf8(text, repaired);
    std::vector<TokenId> ids;
    ids.reserve(text.size());
    for (size_t position = 0; position < text.size();) {
      const size_t begin = position;
      const char32_t c = next_code_point(text, position);
      const TokenId id = id_of(c);
      if (id < 0) {
        fail(
            "the character '{}' (U+{:04X}) at character {} of the text is not among the {} "
            "characters "
            "of the tokenizer; make it from a text that has every character",
            text.substr(begin, position - begin), static_cast<uint32_t>(c), ids.size(),
            characters_.size());
      }
      ids.push_back(id);
    }
    return ids;
  }

  std::string decode(std::span<const TokenId> ids) const override {
    std::string out;
    for (const TokenId id : ids) {
      const bool known = id >= 0 && static_cast<size_t>(id) < characters_.size();
      append_utf8(out, known ? characters_[static_cast<size_t>(id)] : char32_t{0xFFFD});
    }
    return out;
  }

  int64_t vocab_size() const override { return static_cast<int64_t>(characters_.size()); }
  std::optional<TokenId> end_of_text() const override { return std::nullopt; }

  void save(const std::filesystem::path& folder) const override {
    std::string all;
    for (const char32_t c : characters_) append_utf8(all, c);
    std::filesystem::create_directories(folder);
    const nlohmann::json file = {{"type", "chars"}, {"characters", all}};
    write_file_atomically(folder / "chars.json", file.dump(2) + "\n");
  }

  std::string description() const override { return fmt::format("chars ({})", vocab_size()); }

 private:
  TokenId id_of(char32_t c) const {
    if (c < low_.size()) return low_[c];
    const auto found = high_.find(c);
    return found == high_.end() ? -1 : found->second;
  }

  std::u32string characters_;  // by id
  std::array<TokenId, 256> low_;
  std::unordered_map<char32_t, TokenId> high_;
};

std::u32string code_points(std::string_view text) {
  std::u32string out;
  out.reserve(text.size());
  for (size_t position = 0; position < text.size();) out.push_back(next_code_point(text, position));
  return out;
}

}  // namespace

std::unique_ptr<Tokenizer> make_byte_tokenizer() { return std::make_unique<ByteTokenizer>(); }

std::unique_ptr<Tokenizer> make_char_tokenizer(std::string_view text) {
  std::string repaired;
  text = as_valid_utf8(text, repaired);
  std::vector<bool> seen(0x110000);
  for (size_t position = 0; position < text.size();) seen[next_code_point(text, position)] = true;
  std::u32string characters;
  for (size_t c = 0; c < seen.size(); ++c) {
    if (seen[c]) characters.push_back(static_cast<char32_t>(c));
  }
  if (characters.empty()) fail("a character tokenizer needs a text that is not empty");
  return std::make_unique<CharTokenizer>(std::move(characters));
}

std::unique_ptr<Tokenizer> read_char_tokenizer(std::string_view chars_json,
                                               const std::string& where) {
  try {
    const auto file = parse_json(chars_json, where);
    const std::u32string characters = code_points(file.at("characters").get<std::string>());
    std::u32string sorted = characters;
    std::sort(sorted.begin(), sorted.end());
    if (sorted.empty() || std::adjacent_find(sorted.begin(), sorted.end()) != sorted.end()) {
      fail("{}: 'characters' must name every character once", where);
    }
    return std::make_unique<CharTokenizer>(characters);
  } catch (const nlohmann::json::exception& error) {
    fail("{}: not a character tokenizer: {}", where, json_trouble(error));
  }
}

}  // namespace refract
