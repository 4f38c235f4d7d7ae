#include "text/regex_dialect.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include <algorithm>

#include "core/error.h"

namespace refract {
namespace {

// The sets are those of the Oniguruma in `tokenizers` 0.23, found by asking it about every code
// point; a test compares them again. PCRE2's differ: its \s holds U+180E, its \w lacks marks, its
// \h is horizontal space.
constexpr std::string_view kSpace = R"(\x{09}-\x{0D}\x{20}\x{85}\p{Z})";
constexpr std::string_view kPosixWord = R"(\p{Alphabetic}\p{M}\p{Nd}\p{Pc})";
// Outside a class Oniguruma takes \w below U+0100 from Latin-1's table, which has the superscripts
// and fractions too.
constexpr std::string_view kWord =
    R"(\p{Alphabetic}\p{M}\p{Nd}\p{Pc}\x{B2}\x{B3}\x{B9}\x{BC}-\x{BE})";
constexpr std::string_view kHex = "0-9A-Fa-f";

// What [:name:] holds; empty for names that are not supported (of alpha, alnum and lower the
// members changed between the versions of Unicode that PCRE2 and Oniguruma know).
std::string_view posix_class(std::string_view name) {
  if (name == "digit") return R"(\p{Nd})";
  if (name == "upper") return R"(\p{Uppercase})";
  if (name == "punct") return R"(\p{P}\p{S})";
  if (name == "space") return kSpace;
  if (name == "word") return kPosixWord;
  if (name == "cntrl") return R"(\p{Cc})";
  return "";
}

// Whether PCRE2 accepts an expression in its own dialect.
bool pcre2_compiles(const std::string& pattern) {
  int code = 0;
  PCRE2_SIZE offset = 0;
  pcre2_code* compiled = pcre2_compile(reinterpret_cast<PCRE2_SPTR>(pattern.data()), pattern.size(),
                                       PCRE2_UTF | PCRE2_UCP, &code, &offset, nullptr);
  pcre2_code_free(compiled);
  return compiled != nullptr;
}

class Translator {
 public:
  explicit Translator(std::string_view pattern) : in_(pattern) {}

  std::string run() {
    while (position_ < in_.size()) step();
    return std::move(out_);
  }

 private:
  [[noreturn]] void refuse(std::string_view what) const {
    fail(
        "regular expression '{}': {} at offset {} is not supported, because PCRE2 reads it "
        "differently from `tokenizers`",
        in_, what, position_);
  }

  char at(size_t i) const { return i < in_.size() ? in_[i] : '\0'; }

  void step() {
    const char c = in_[position_];
    if (c == '\\') {
      escape();
    } else if (in_class_) {
      class_character(c);
    } else if (c == '[') {
      open_class();
    } else {
      // In Oniguruma x{1,3}+ repeats the repetition; in PCRE2 it is possessive.
      if (c == '}' && at(position_ + 1) == '+') refuse("'}+'");
      out_ += c;
      ++position_;
    }
  }

  void open_class() {
    in_class_ = true;
    out_ += '[';
    ++position_;
    if (at(position_) == '^') {
      out_ += '^';
      ++position_;
    }
    if (at(position_) == ']') refuse("']' first in a character class");
  }

  void class_character(char c) {
    if (c == '[' && at(position_ + 1) == ':') {
      const size_t end = in_.find(":]", position_ + 2);
      if (end == std::string_view::npos) refuse("'[:'");
      const auto members = posix_class(in_.substr(position_ + 2, end - position_ - 2));
      if (members.empty()) refuse(in_.substr(position_, end + 2 - position_));
      out_ += members;
      position_ = end + 2;
      return;
    }
    if (c == '[') refuse("a class inside a character class");
    if (c == '&' && at(position_ + 1) == '&') refuse("'&&'");
    if (c == ']') in_class_ = false;
    out_ += c;
    ++position_;
  }

  // A set of characters, inside or outside a class.
  void set(std::string_view members, bool negated, std::string_view name) {
    if (in_class_ && negated) refuse(name);
    if (!in_class_) out_ += negated ? "[^" : "[";
    out_ += members;
    if (!in_class_) out_ += ']';
  }

  // A word boundary (or its absence) in terms of kWord.
  void boundary(bool negated) {
    const std::string word = "[" + std::string(kWord) + "]";
    const std::string after = "(?<=" + word + ")", not_after = "(?<!" + word + ")";
    const std::string before = "(?=" + word + ")", not_before = "(?!" + word + ")";
    out_ += "(?:" + after + (negated ? before : not_before) + "|" + not_after +
            (negated ? not_before : before) + ")";
  }

  // \p{Han} is the script in Oniguruma; PCRE2 adds characters that several scripts share.
  void braces(char escape, std::string_view text) {
    if (escape != 'x' && text.size() > 4 && text.back() == '}') {
      const bool negated = text[1] == '^';
      const std::string name(text.substr(negated ? 2 : 1, text.size() - (negated ? 3 : 2)));
      if (pcre2_compiles("\\p{sc:" + name + "}")) {
        out_ += (negated ? "{^sc:" : "{sc:") + name + "}";
        return;
      }
    }
    out_ += text;
  }

  void escape() {
    const char c = at(position_ + 1);
    if (c == '\0') refuse("a backslash at the end");
    switch (c) {
      case 'u':  // four hexadecimal digits
        out_ += "\\x{" + std::string(in_.substr(position_ + 2, 4)) + "}";
        position_ += 4;
        break;
      case 's':
        set(kSpace, false, "\\s");
        break;
      case 'S':
        set(kSpace, true, "\\S in a character class");
        break;
      case 'w':
        set(in_class_ ? kPosixWord : kWord, false, "\\w");
        break;
      case 'W':
        set(kWord, true, "\\W in a character class");
        break;
      case 'h':
        set(kHex, false, "\\h");
        break;
      case 'H':
        set(kHex, true, "\\H in a character class");
        break;
      case 'b':
      case 'B':
        if (in_class_) {
          out_ += in_.substr(position_, 2);
        } else {
          boundary(c == 'B');
        }
        break;
      default:
        out_ += in_.substr(position_, 2);
    }
    position_ += 2;
    // The braces of \p{L} and \x{41} belong to the escape.
    if ((c == 'p' || c == 'P' || c == 'x') && at(position_) == '{') {
      const size_t end = std::min(in_.find('}', position_), in_.size() - 1) + 1;
      braces(c, in_.substr(position_, end - position_));
      position_ = end;
    }
  }

  std::string_view in_;
  std::string out_;
  size_t position_ = 0;
  bool in_class_ = false;
};

}  // namespace

std::string to_pcre2_dialect(std::string_view pattern) { return Translator(pattern).run(); }

}  // namespace refract
