// The text of a continuation. It depends on what stands before it: SentencePiece's first piece of a
// text loses its space, so prompt and continuation are decoded together and then cut.
#pragma once
#include <cstddef>
#include <string>
#include <vector>

#include "text/tokenizer.h"

namespace refract {

// What `made` adds to the text of `prompt`.
std::string continuation(const Tokenizer& tokenizer, const std::vector<TokenId>& prompt,
                         const std::vector<TokenId>& made);

// The same as it grows.
class TextStream {
 public:
  explicit TextStream(const Tokenizer& tokenizer, std::vector<TokenId> prompt = {});

  // What the next token adds to the text. A token may end inside a character, which then comes
  // with the token that completes it.
  std::string add(TokenId token);
  // What add() held back at the end: characters that never became whole.
  std::string rest();

 private:
  std::string give(const std::string& text, size_t end);

  const Tokenizer& tokenizer_;
  std::vector<TokenId> tokens_;
  size_t given_ = 0;  // bytes
};

}  // namespace refract
