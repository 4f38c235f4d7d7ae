// Generated text as it grows.
#pragma once
#include <cstddef>
#include <string>
#include <vector>

#include "text/tokenizer.h"

namespace refract {

class TextStream {
 public:
  explicit TextStream(const Tokenizer& tokenizer) : tokenizer_(tokenizer) {}

  // What the next token adds to the text. A token may end inside a character, which then comes
  // with the token that completes it.
  std::string add(TokenId token);

 private:
  const Tokenizer& tokenizer_;
  std::vector<TokenId> tokens_;
  size_t given_ = 0;  // bytes
};

}  // namespace refract
