#include "decode/text_stream.h"

#include "text/utf8.h"

namespace refract {

std::string TextStream::add(TokenId token) {
  tokens_.push_back(token);
  const std::string text = tokenizer_.decode(tokens_);
  const size_t whole = complete_utf8(text);
  if (whole <= given_) return "";
  const size_t begin = given_;
  given_ = whole;
  return text.substr(begin, whole - begin);
}

}  // namespace refract
