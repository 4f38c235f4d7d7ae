#include "core/expression.h"

#include <charconv>
#include <cmath>

#include "core/error.h"
#include "core/untrusted.h"

namespace refract {
namespace {

class Parser {
 public:
  Parser(std::string_view text, const std::vector<std::pair<std::string_view, double>>& names)
      : text_(text), names_(names) {}

  double parse() {
    const double value = sum();
    skip_spaces();
    if (at_ < text_.size()) complain("an operator");
    if (!std::isfinite(value)) fail_usage("the expression '{}' has no finite value", shown(text_));
    return value;
  }

 private:
  [[noreturn]] void complain(std::string_view expected) {
    fail_usage("the expression '{}' needs {} at character {}", shown(text_), expected, at_ + 1);
  }

  void skip_spaces() {
    while (at_ < text_.size() && text_[at_] == ' ') ++at_;
  }

  bool take(char c) {
    skip_spaces();
    if (at_ >= text_.size() || text_[at_] != c) return false;
    ++at_;
    return true;
  }

  double sum() {
    double value = product();
    for (;;) {
      if (take('+')) {
        value += product();
      } else if (take('-')) {
        value -= product();
      } else {
        return value;
      }
    }
  }

  double product() {
    double value = factor();
    for (;;) {
      if (take('*')) {
        value *= factor();
      } else if (take('/')) {
        value /= factor();
      } else {
        return value;
      }
    }
  }

  // One level deeper in brackets or signs, each of which is a call of this function.
  double deeper(char closing) {
    if (++depth_ > kMaxDepth) {
      fail_usage("the expression '{}' nests brackets and signs deeper than {} levels", shown(text_),
                 kMaxDepth);
    }
    const double value = closing == 0 ? factor() : sum();
    if (closing != 0 && !take(closing)) complain("')'");
    --depth_;
    return value;
  }

  double factor() {
    if (take('-')) return -deeper(0);
    if (take('(')) return deeper(')');
    skip_spaces();
    for (const auto& [name, value] : names_) {
      if (text_.substr(at_).starts_with(name)) {
        at_ += name.size();
        return value;
      }
    }
    double value = 0;
    const auto [end, error] =
        std::from_chars(text_.data() + at_, text_.data() + text_.size(), value);
    if (error != std::errc()) complain("a number or a name");
    at_ = static_cast<size_t>(end - text_.data());
    return value;
  }

  std::string_view text_;
  const std::vector<std::pair<std::string_view, double>>& names_;
  size_t at_ = 0;
  int depth_ = 0;
};

}  // namespace

double evaluate_expression(std::string_view text,
                           const std::vector<std::pair<std::string_view, double>>& names) {
  return Parser(text, names).parse();
}

}  // namespace refract
