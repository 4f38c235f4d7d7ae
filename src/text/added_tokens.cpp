#include "text/added_tokens.h"

#include <algorithm>
#include <cstring>
#include <mutex>

#include "text/regex.h"
#include "text/utf8.h"

namespace refract {
namespace {

// Whether a code point is a \w of the Rust regular expressions that `tokenizers` asks here. Rare
// enough (only for single_word tokens that were found) to share one matcher.
bool is_word_character(char32_t code_point) {
  static std::mutex mutex;
  static const Regex regex(R"([\p{Alphabetic}\p{M}\p{Nd}\p{Pc}\p{Join_Control}])");
  static Matcher matcher(regex);
  std::string character;
  append_utf8(character, code_point);
  const std::lock_guard lock(mutex);
  return matcher.contains(character);
}

// Start of the white space that ends at `end`.
size_t space_before(std::string_view text, size_t end) {
  while (end > 0) {
    const char32_t c = previous_code_point(text, end);
    if (!is_white_space(c)) break;
    --end;
    while ((static_cast<unsigned char>(text[end]) & 0xC0) == 0x80) --end;
  }
  return end;
}

// End of the white space that starts at `begin`.
size_t space_after(std::string_view text, size_t begin) {
  while (begin < text.size()) {
    size_t next = begin;
    if (!is_white_space(next_code_point(text, next))) break;
    begin = next;
  }
  return begin;
}

}  // namespace

void AddedVocabulary::add(AddedToken token) {
  if (token.content.empty()) return;
  for (AddedToken& known : tokens_) {
    if (known.content != token.content) continue;
    if (token.special && !known.special) {
      token.id = known.id;
      known = std::move(token);
    }
    return;
  }
  const std::optional<TokenId> known = lookup_(token.content);
  token.id = known ? *known : std::max(next_, size_);
  next_ = std::max(next_, token.id + 1);
  tokens_.push_back(std::move(token));
}

bool AddedVocabulary::contains(const std::string& content) const {
  return std::any_of(tokens_.begin(), tokens_.end(),
                     [&](const AddedToken& token) { return token.content == content; });
}

std::optional<TokenId> AddedVocabulary::find(const std::string& content) const {
  for (const AddedToken& token : tokens_) {
    if (token.content == content) return token.id;
  }
  return lookup_(content);
}

AddedTokenFinder::AddedTokenFinder() = default;
AddedTokenFinder::~AddedTokenFinder() = default;

void AddedTokenFinder::add(std::string pattern, AddedToken token) {
  if (pattern.empty()) return;
  const auto first = static_cast<unsigned char>(pattern[0]);
  only_first_byte_ = patterns_.empty() || only_first_byte_ == first ? first : -1;
  first_bytes_[first] = true;
  const auto longer = [&](const Pattern& other) { return other.text.size() < pattern.size(); };
  const auto place = std::find_if(patterns_.begin(), patterns_.end(), longer);
  patterns_.insert(place, Pattern{std::move(pattern), std::move(token)});
}

const AddedTokenFinder::Pattern* AddedTokenFinder::match_at(std::string_view text,
                                                            size_t position) const {
  for (const Pattern& pattern : patterns_) {
    if (text.substr(position, pattern.text.size()) == pattern.text) return &pattern;
  }
  return nullptr;
}

size_t AddedTokenFinder::next_candidate(std::string_view text, size_t position) const {
  if (patterns_.empty() || position >= text.size()) return text.size();
  if (only_first_byte_ >= 0) {
    const void* found =
        std::memchr(text.data() + position, only_first_byte_, text.size() - position);
    return found ? static_cast<size_t>(static_cast<const char*>(found) - text.data()) : text.size();
  }
  while (position < text.size() && !first_bytes_[static_cast<unsigned char>(text[position])]) {
    ++position;
  }
  return position;
}

bool AddedTokenFinder::stands_alone(std::string_view text, size_t begin, size_t end) const {
  if (begin > 0 && is_word_character(previous_code_point(text, begin))) return false;
  return end == text.size() || !is_word_character(next_code_point(text, end));
}

void AddedTokenFinder::split(std::string_view text, bool parse_special,
                             std::vector<Part>& parts) const {
  size_t done = 0, position = 0;
  for (;;) {
    position = next_candidate(text, position);
    if (position >= text.size()) break;
    const Pattern* pattern = match_at(text, position);
    if (!pattern) {
      ++position;
      continue;
    }
    const AddedToken& token = pattern->token;
    size_t begin = position, end = position + pattern->text.size();
    position = end;  // a match that is turned down below is passed over all the same
    if (token.special && !parse_special) continue;
    if (token.single_word && !stands_alone(text, begin, end)) continue;
    if (token.lstrip) begin = std::max(space_before(text, begin), done);
    if (token.rstrip) end = space_after(text, end);
    if (done < begin) parts.push_back({text.substr(done, begin - done), nullptr});
    parts.push_back({text.substr(begin, end - begin), &token});
    done = end;
  }
  if (done < text.size()) parts.push_back({text.substr(done), nullptr});
}

}  // namespace refract
