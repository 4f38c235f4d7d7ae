#include "data/files/json_line.h"

#include <cctype>
#include <optional>
#include <vector>

#include "core/error.h"
#include "core/untrusted.h"
#include "text/utf8.h"

namespace refract {
namespace {

constexpr char32_t kReplacement = 0xfffd;

// Goes through one JSON value without building it: of a line only one field is wanted, and the rest
// may nest deeper than a recursion could go.
class LineReader {
 public:
  LineReader(std::string_view line, const std::string& where) : line_(line), where_(where) {}

  std::string text_of(const std::string& field) {
    space();
    if (peek() != '{') complain("is not an object; a .jsonl file has one object a line");
    Found found = search(field);
    space();
    if (at_ < line_.size()) complain("goes on behind its object; a .jsonl file has one a line");
    if (found.text) return std::move(*found.text);
    if (!found.other.empty())
      fail("{}: the field '{}' is {}, not a text", where_, field, found.other);
    fail("{}: the document has no field '{}' (it has: {}); name the text's with data.text_field",
         where_, field, shown(found.names));
  }

 private:
  [[noreturn]] void complain(std::string_view what) const {
    fail("{}: the line {} (character {})", where_, what, at_ + 1);
  }
  [[noreturn]] void cut_off() const {
    fail("{}: the line ends inside its object: it is cut off, or not one object a line", where_);
  }

  struct Found {
    std::optional<std::string> text;
    std::string other;  // what the field holds if it is no text
    std::string names;  // the object's keys
  };

  // Goes through the object here. "a.b" is the key of that name, or else b of the object a.
  Found search(std::string_view field) {
    Found found, inner;
    ++at_;
    space();
    bool more = peek() != '}';
    if (!more) ++at_;
    while (more) {
      const std::string key = key_and_colon();
      found.names += (found.names.empty() ? "" : ", ") + key;
      const char first = peek();
      const bool above =
          field.size() > key.size() + 1 && field.starts_with(key) && field[key.size()] == '.';
      if (key == field) {
        found.other = kind_of(first);
        found.text.reset();
      }
      if (above) inner = {};
      if (first == '"' && key == field) {
        found.text = string();
      } else if (first == '{' && above) {
        inner = search(field.substr(key.size() + 1));
        found.names += ", " + key + "." + inner.names;
      } else {
        skip_value();
      }
      more = comma_or('}');
    }
    if (found.other.empty()) {
      found.text = std::move(inner.text);
      found.other = std::move(inner.other);
    }
    return found;
  }

  char peek() const {
    if (at_ >= line_.size()) cut_off();
    return line_[at_];
  }
  void space() {
    while (at_ < line_.size() && std::string_view(" \t\r\n").find(line_[at_]) != line_.npos) ++at_;
  }

  static std::string kind_of(char first) {
    if (first == '{') return "an object";
    if (first == '[') return "a list";
    if (first == 'n') return "null";
    if (first == 't' || first == 'f') return "a truth value";
    return first == '"' ? "a text" : "a number";
  }

  std::string key_and_colon() {
    space();
    if (peek() != '"') complain("has something else than a key in quotes");
    std::string key = string();
    space();
    if (peek() != ':') complain("has no colon behind a key");
    ++at_;
    space();
    peek();
    return key;
  }

  // Behind a value: true for a comma, false for `close`.
  bool comma_or(char close) {
    space();
    const char c = peek();
    if (c != ',' && c != close) complain(fmt::format("has neither a comma nor a {} here", close));
    ++at_;
    return c == ',';
  }

  void skip_value() {
    std::vector<char> open;  // of the lists and objects that are entered
    do {
      space();
      const char c = peek();
      if (c == '{' || c == '[') {
        ++at_;
        space();
        const char close = c == '{' ? '}' : ']';
        if (peek() == close) {
          ++at_;
        } else {
          open.push_back(close);
          if (close == '}') key_and_colon();
          continue;
        }
      } else if (c == '"') {
        string();
      } else {
        word();
      }
      while (!open.empty() && !comma_or(open.back())) open.pop_back();
      if (!open.empty() && open.back() == '}') key_and_colon();
    } while (!open.empty());
  }

  // A number, or one of the words for values.
  void word() {
    const size_t begin = at_;
    while (at_ < line_.size() && (std::isalnum(static_cast<unsigned char>(line_[at_])) ||
                                  std::string_view("+-.").find(line_[at_]) != line_.npos)) {
      ++at_;
    }
    const std::string_view text = line_.substr(begin, at_ - begin);
    for (const char* known : {"true", "false", "null", "NaN", "Infinity", "-Infinity"}) {
      if (text == known) return;
    }
    if (is_number(text)) return;
    at_ = begin;
    complain("has something here that is no JSON value");
  }

  static bool is_number(std::string_view text) {
    size_t i = text.starts_with('-') ? 1 : 0;
    const auto digits = [&] {
      const size_t begin = i;
      while (i < text.size() && std::isdigit(static_cast<unsigned char>(text[i]))) ++i;
      return i - begin;
    };
    const bool zero = i < text.size() && text[i] == '0';
    const size_t whole = digits();
    if (whole == 0 || (zero && whole > 1)) return false;
    if (i < text.size() && text[i] == '.') {
      ++i;
      if (digits() == 0) return false;
    }
    if (i < text.size() && (text[i] == 'e' || text[i] == 'E')) {
      ++i;
      if (i < text.size() && (text[i] == '+' || text[i] == '-')) ++i;
      if (digits() == 0) return false;
    }
    return i == text.size();
  }

  // The string that begins at the quote here.
  std::string string() {
    std::string out;
    for (++at_; peek() != '"';) {
      const char c = line_[at_];
      if (static_cast<unsigned char>(c) < 0x20)
        complain("has a control character inside a text; JSON writes it as \\t, \\n or \\u0001");
      ++at_;
      if (c != '\\') {
        out += c;
      } else {
        escape(out);
      }
    }
    ++at_;
    return out;
  }

  void escape(std::string& out) {
    constexpr std::string_view kLetters = "\"\\/bfnrt", kMeaning = "\"\\/\b\f\n\r\t";
    const char c = peek();
    if (const size_t known = kLetters.find(c); known != std::string_view::npos) {
      out += kMeaning[known];
      ++at_;
      return;
    }
    if (c != 'u') complain("has an escape in a text that JSON does not know");
    char32_t code = unit();
    if (code >= 0xd800 && code < 0xdc00 && line_.substr(at_, 2) == "\\u") {
      const size_t back = at_++;
      const char32_t low = unit();
      if (low >= 0xdc00 && low < 0xe000) {
        code = 0x10000 + ((code - 0xd800) << 10) + (low - 0xdc00);
      } else {
        at_ = back;  // no pair: the second is read on its own
      }
    }
    append_utf8(out, code >= 0xd800 && code < 0xe000 ? kReplacement : code);
  }

  // The four digits behind the u here.
  char32_t unit() {
    char32_t code = 0;
    for (int i = 0; i < 4; ++i) {
      ++at_;
      const char c = peek();
      if (!std::isxdigit(static_cast<unsigned char>(c)))
        complain("has a \\u in a text without four digits behind it");
      const int digit = c <= '9' ? c - '0' : (c | 0x20) - 'a' + 10;
      code = code * 16 + static_cast<char32_t>(digit);
    }
    ++at_;
    return code;
  }

  std::string_view line_;
  const std::string& where_;
  size_t at_ = 0;
};

}  // namespace

std::string json_line_text(std::string_view line, const std::string& field,
                           const std::string& where) {
  return LineReader(line, where).text_of(field);
}

}  // namespace refract
