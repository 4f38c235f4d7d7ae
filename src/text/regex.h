// Regular expressions of a tokenizer.json, run by PCRE2 with Unicode properties and its JIT.
#pragma once
#include <cstddef>
#include <memory>
#include <string>
#include <string_view>

namespace refract {

struct Match {
  size_t begin, end;
};

// A compiled expression; safe to share between threads, each with its own Matcher.
class Regex {
 public:
  // `pattern` in Oniguruma's dialect, or a plain string to be found as it is.
  explicit Regex(std::string_view pattern, bool literal = false);
  ~Regex();
  Regex(Regex&&) noexcept;
  Regex& operator=(Regex&&) noexcept;

  struct Compiled;
  const Compiled& compiled() const { return *compiled_; }

 private:
  std::unique_ptr<Compiled> compiled_;
};

// One thread's working memory for one expression.
class Matcher {
 public:
  explicit Matcher(const Regex& regex);
  ~Matcher();
  Matcher(Matcher&&) noexcept;
  Matcher& operator=(Matcher&&) noexcept;

  // Starts over on `text`, which must be well-formed UTF-8 and outlive the search.
  void reset(std::string_view text);

  // The next match, or false. Two matches never overlap, and an empty match never touches the end
  // of the one before it (as Oniguruma's bindings iterate).
  bool next(Match& match);

  // True where the expression matches somewhere in `text`.
  bool contains(std::string_view text);

 private:
  int search(size_t start);

  struct State;
  std::unique_ptr<State> state_;
};

// The pattern of a dotted name, whose dots are no wildcards.
std::string pattern_of_name(std::string_view name);

}  // namespace refract
