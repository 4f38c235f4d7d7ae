// One continuation as it grows: its text, where a stop string ends it, and its tokens' scores.
#pragma once
#include <cstddef>
#include <cstdint>
#include <deque>
#include <optional>
#include <string>
#include <vector>

#include "decode/text_stream.h"
#include "serve/engine/work.h"
#include "text/tokenizer.h"

namespace refract {

// A token with what a client is told about it.
struct ShownToken {
  TokenScore score;
  std::optional<TokenId> previous;  // the token before it
  int64_t offset = 0;               // of its text, in characters from the choice's beginning
};

class Choice {
 public:
  // `offset`: characters that stand before the new text.
  Choice(const Tokenizer& tokenizer, const std::vector<TokenId>& prompt,
         const std::vector<std::string>& stops, int64_t offset);

  // What can be told now and will not change. Whole characters only; what may turn out to be the
  // beginning of a stop string waits.
  struct Piece {
    std::string text;
    std::vector<ShownToken> tokens;
  };
  Piece add(const TokenScore& score);
  // An end that is a token: it has a score and no text.
  Piece add_silent(const TokenScore& score);
  // What was still held back.
  Piece finish();

  bool stopped() const { return stopped_; }  // at a stop string; nothing more comes

 private:
  struct Pending {
    ShownToken token;
    size_t begin = 0;  // bytes of text_ before it
  };
  void hold(const TokenScore& score);
  void grow(const std::string& text);
  Piece release(bool last);
  void find_stop();
  size_t beginning_of_stop() const;

  TextStream stream_;
  std::vector<std::string> stops_;
  size_t longest_stop_ = 0;
  TokenId previous_;
  std::string text_;
  int64_t offset_;
  size_t given_ = 0, searched_ = 0;  // bytes of text_
  std::deque<Pending> pending_;
  bool stopped_ = false;
};

// What a token says behind another; bytes that are no whole characters as "bytes:\xe2\x82".
std::string token_text(const Tokenizer& tokenizer, std::optional<TokenId> previous, TokenId token);
// Characters that begin in the text.
int64_t character_count(std::string_view text);

}  // namespace refract
