// Added tokens: strings that are found in a text before it is pre-tokenized.
#pragma once
#include <array>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "text/tokenizer.h"

namespace refract {

// The fields of `added_tokens` in a tokenizer.json.
struct AddedToken {
  std::string content;
  TokenId id = 0;
  bool single_word = false;  // only where no word character stands beside it
  bool lstrip = false;       // takes the white space before it
  bool rstrip = false;       // takes the white space after it
  bool normalized = false;   // looked for in the normalized text
  bool special = false;
};

// A set of added tokens with the ids that `tokenizers` gives them: the vocabulary's where it has
// the token, else the next free one behind it.
class AddedVocabulary {
 public:
  using Lookup = std::function<std::optional<TokenId>(const std::string&)>;
  // `lookup` finds a token of the vocabulary, which has `size` tokens.
  AddedVocabulary(Lookup lookup, TokenId size) : lookup_(std::move(lookup)), size_(size) {}

  // The id of `token` is not read. A token that is there already stays as it is, but for one that
  // becomes special, which takes the new flags.
  void add(AddedToken token);
  bool contains(const std::string& content) const;
  // Of an added token or one of the vocabulary.
  std::optional<TokenId> find(const std::string& content) const;
  const std::vector<AddedToken>& tokens() const { return tokens_; }

 private:
  Lookup lookup_;
  TokenId size_, next_ = 0;
  std::vector<AddedToken> tokens_;
};

// Finds a set of added tokens: the leftmost match, and of those the longest.
class AddedTokenFinder {
 public:
  AddedTokenFinder();
  ~AddedTokenFinder();
  // `pattern` is what is looked for: the content, normalized for a normalized token.
  void add(std::string pattern, AddedToken token);
  bool empty() const { return patterns_.empty(); }

  // A part of the text: plain text (token is null) or a token.
  struct Part {
    std::string_view text;
    const AddedToken* token;
  };

  // Cuts well-formed `text` into parts, appended to `parts`. Without `parse_special` special tokens
  // stay in the plain text.
  void split(std::string_view text, bool parse_special, std::vector<Part>& parts) const;

 private:
  struct Pattern {
    std::string text;
    AddedToken token;
  };
  const Pattern* match_at(std::string_view text, size_t position) const;
  size_t next_candidate(std::string_view text, size_t position) const;
  bool stands_alone(std::string_view text, size_t begin, size_t end) const;

  std::vector<Pattern> patterns_;        // longest first
  std::array<bool, 256> first_bytes_{};  // of all patterns
  int only_first_byte_ = -1;             // where they all begin alike: memchr
};

}  // namespace refract
