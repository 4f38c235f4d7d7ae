// Byte-pair encoding of one word, of bytes or of characters.
#pragma once
#include <array>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include "text/tokenizer.h"

namespace refract {

class BpeModel {
 public:
  struct Options {
    bool ignore_merges = false;      // a word that is itself a token is not built from merges
    std::optional<TokenId> unknown;  // for a byte without a token; none: the byte is dropped
    bool fuse_unknown = false;       // neighbouring unknown bytes become one
    // Merges begin with characters. One without a token becomes its bytes, "<0x00>" to "<0xFF>",
    // where they have tokens.
    bool characters = false;
  };

  // A pair of ids, in the order of their priority, and the id that replaces it.
  struct Merge {
    TokenId left, right, result;
  };

  // `vocabulary` maps a token's bytes (not their printable characters) to its id. Words of
  // characters are well-formed UTF-8.
  BpeModel(std::unordered_map<std::string, TokenId> vocabulary, const std::vector<Merge>& merges,
           Options options);

  // One thread's working memory, and its cache of words already encoded.
  class Scratch;
  struct ScratchDeleter {
    void operator()(Scratch* scratch) const;
  };
  using ScratchPtr = std::unique_ptr<Scratch, ScratchDeleter>;
  static ScratchPtr make_scratch();

  // Appends the ids of a word to `out`.
  void encode_word(std::string_view bytes, Scratch& scratch, std::vector<TokenId>& out) const;

 private:
  struct Entry {
    uint64_t pair;
    uint32_t rank;
    TokenId result;
  };
  static constexpr uint32_t kNoRank = UINT32_MAX;

  const Entry* find(TokenId left, TokenId right) const;
  void add_merge(const Merge& merge, uint32_t rank);
  void encode_uncached(std::string_view bytes, Scratch& scratch, std::vector<TokenId>& out) const;
  void base_symbols(std::string_view bytes, std::vector<TokenId>& symbols) const;
  void character_symbols(std::string_view text, std::vector<TokenId>& symbols) const;
  TokenId id_of(std::string_view character) const;
  void merge_short(Scratch& scratch) const;
  void merge_long(Scratch& scratch) const;

  std::unordered_map<std::string, TokenId> vocabulary_;  // for ignore_merges and characters
  std::array<TokenId, 256> byte_ids_;                    // of one byte; -1: no token
  std::array<TokenId, 256> fallback_ids_;                // of "<0x00>" to "<0xFF>"
  std::vector<Entry> table_;                             // open addressing, a power of two
  uint64_t mask_ = 0;
  Options options_;
};

}  // namespace refract
