#include "decode/text_stream.h"

#include <string_view>
#include <utility>

#include "text/utf8.h"

namespace refract {
namespace {

// Bytes of the prompt's text with which the whole begins. All of them, but for a character that the
// prompt ends inside: its bytes show as something else until the rest is there.
size_t shared_start(const std::string& prompt, const std::string& whole) {
  size_t same = 0;
  while (same < prompt.size() && same < whole.size() && prompt[same] == whole[same]) ++same;
  if (same == prompt.size()) return same;
  while (same > 0 && same < whole.size() &&
         (static_cast<unsigned char>(whole[same]) & 0xC0) == 0x80)
    --same;
  return same;
}

// Bytes of `text` that further tokens leave as they are. SentencePiece shows the bytes of a
// character that is not complete yet as U+FFFD each, at most three of them.
size_t settled(const std::string& text) {
  constexpr std::string_view kReplacement = "\xEF\xBF\xBD";
  size_t whole = complete_utf8(text);
  for (int i = 0; i < 3 && std::string_view(text).substr(0, whole).ends_with(kReplacement); ++i)
    whole -= kReplacement.size();
  return whole;
}

}  // namespace

std::string continuation(const Tokenizer& tokenizer, const std::vector<TokenId>& prompt,
                         const std::vector<TokenId>& made) {
  std::vector<TokenId> all = prompt;
  all.insert(all.end(), made.begin(), made.end());
  const std::string whole = tokenizer.decode(all);
  return whole.substr(shared_start(tokenizer.decode(prompt), whole));
}

TextStream::TextStream(const Tokenizer& tokenizer, std::vector<TokenId> prompt)
    : tokenizer_(tokenizer), tokens_(std::move(prompt)) {
  if (!tokens_.empty()) given_ = tokenizer_.decode(tokens_).size();
}

std::string TextStream::add(TokenId token) {
  tokens_.push_back(token);
  const std::string text = tokenizer_.decode(tokens_);
  return give(text, settled(text));
}

std::string TextStream::rest() {
  if (tokens_.empty()) return "";
  const std::string text = tokenizer_.decode(tokens_);
  return give(text, complete_utf8(text));
}

std::string TextStream::give(const std::string& text, size_t end) {
  if (end <= given_) return "";
  const size_t begin = given_;
  given_ = end;
  return text.substr(begin, end - begin);
}

}  // namespace refract
