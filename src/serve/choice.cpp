#include "serve/choice.h"

#include <fmt/format.h>

#include <algorithm>
#include <string_view>
#include <utility>

#include "text/utf8.h"

namespace refract {

Choice::Choice(const Tokenizer& tokenizer, const std::vector<TokenId>& prompt,
               const std::vector<std::string>& stops, int64_t offset)
    : stream_(tokenizer, prompt), stops_(stops), previous_(prompt.back()), offset_(offset) {
  for (const std::string& stop : stops_) longest_stop_ = std::max(longest_stop_, stop.size());
}

void Choice::hold(const TokenScore& score) {
  pending_.push_back({{score, previous_, offset_}, text_.size()});
  previous_ = score.token;
}

void Choice::grow(const std::string& text) {
  text_ += text;
  offset_ += character_count(text);
}

Choice::Piece Choice::add(const TokenScore& score) {
  if (stopped_) return {};
  hold(score);
  grow(stream_.add(score.token));
  return release(false);
}

Choice::Piece Choice::add_silent(const TokenScore& score) {
  if (stopped_) return {};
  hold(score);
  return {};
}

Choice::Piece Choice::finish() {
  if (stopped_) return {};
  grow(stream_.rest());
  return release(true);
}

// The first stop string in what has not been looked at, or reaches into it.
void Choice::find_stop() {
  if (stops_.empty()) return;
  const size_t from = searched_ - std::min(searched_, longest_stop_ - 1);
  size_t first = std::string::npos;
  for (const std::string& stop : stops_) first = std::min(first, text_.find(stop, from));
  searched_ = text_.size();
  if (first == std::string::npos) return;
  stopped_ = true;
  text_.resize(first);
}

// Bytes at the text's end that may be the beginning of a stop string.
size_t Choice::beginning_of_stop() const {
  if (stops_.empty()) return 0;
  for (size_t size = std::min(longest_stop_ - 1, text_.size() - given_); size > 0; --size) {
    const std::string_view end = std::string_view(text_).substr(text_.size() - size);
    for (const std::string& stop : stops_) {
      if (std::string_view(stop).starts_with(end)) return size;
    }
  }
  return 0;
}

Choice::Piece Choice::release(bool last) {
  find_stop();
  const size_t visible = stopped_ || last ? text_.size() : text_.size() - beginning_of_stop();
  // A token that ends inside a character begins where the text ends so far.
  const bool all = visible == text_.size() && !stopped_;
  Piece piece;
  piece.text = text_.substr(given_, visible - given_);
  given_ = visible;
  while (!pending_.empty() && (all || pending_.front().begin < visible)) {
    piece.tokens.push_back(std::move(pending_.front().token));
    pending_.pop_front();
  }
  if (stopped_) pending_.clear();
  return piece;
}

std::string token_text(const Tokenizer& tokenizer, std::optional<TokenId> previous, TokenId token) {
  std::string text =
      previous ? continuation(tokenizer, {*previous}, {token}) : tokenizer.decode({&token, 1});
  if (is_valid_utf8(text)) return text;
  std::string bytes = "bytes:";
  for (const char c : text) bytes += fmt::format("\\x{:02x}", static_cast<unsigned char>(c));
  return bytes;
}

int64_t character_count(std::string_view text) {
  return std::count_if(text.begin(), text.end(), [](char c) { return (c & 0xC0) != 0x80; });
}

}  // namespace refract
