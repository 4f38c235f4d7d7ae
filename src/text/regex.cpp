#include "text/regex.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include <utility>

#include "core/error.h"
#include "text/regex_dialect.h"
#include "text/utf8.h"

namespace refract {
namespace {

constexpr size_t kNone = static_cast<size_t>(-1);

std::string error_message(int code) {
  PCRE2_UCHAR buffer[256] = {};
  pcre2_get_error_message(code, buffer, sizeof buffer);
  return reinterpret_cast<const char*>(buffer);
}

}  // namespace

struct Regex::Compiled {
  pcre2_code* code = nullptr;
  bool jit = false;
  std::string pattern;  // as it was written
  ~Compiled() { pcre2_code_free(code); }
};

Regex::Regex(std::string_view pattern, bool literal) : compiled_(std::make_unique<Compiled>()) {
  compiled_->pattern = pattern;
  const std::string text = literal ? std::string(pattern) : to_pcre2_dialect(pattern);
  // ^ and $ match at line ends, as in Oniguruma's default syntax.
  const uint32_t options =
      literal ? PCRE2_UTF | PCRE2_LITERAL : PCRE2_UTF | PCRE2_UCP | PCRE2_MULTILINE;
  pcre2_compile_context* context = pcre2_compile_context_create(nullptr);
  pcre2_set_newline(context, PCRE2_NEWLINE_LF);
  int code = 0;
  PCRE2_SIZE offset = 0;
  compiled_->code = pcre2_compile(reinterpret_cast<PCRE2_SPTR>(text.data()), text.size(), options,
                                  &code, &offset, context);
  pcre2_compile_context_free(context);
  if (!compiled_->code) {
    fail("regular expression '{}' does not compile: {} at offset {}", pattern, error_message(code),
         offset);
  }
  compiled_->jit = pcre2_jit_compile(compiled_->code, PCRE2_JIT_COMPLETE) == 0;
}

Regex::~Regex() = default;
Regex::Regex(Regex&&) noexcept = default;
Regex& Regex::operator=(Regex&&) noexcept = default;

struct Matcher::State {
  const Regex::Compiled* compiled = nullptr;
  pcre2_match_data* data = nullptr;
  pcre2_match_context* context = nullptr;
  pcre2_jit_stack* stack = nullptr;
  std::string_view text;
  size_t position = 0;
  size_t last_end = kNone;

  ~State() {
    pcre2_match_data_free(data);
    pcre2_match_context_free(context);
    pcre2_jit_stack_free(stack);
  }
};

Matcher::Matcher(const Regex& regex) : state_(std::make_unique<State>()) {
  state_->compiled = &regex.compiled();
  state_->data = pcre2_match_data_create(1, nullptr);  // only the whole match is read
  state_->context = pcre2_match_context_create(nullptr);
  state_->stack = pcre2_jit_stack_create(32 << 10, 16 << 20, nullptr);
  if (!state_->data || !state_->context || !state_->stack) {
    fail("out of memory for a regular expression's working memory");
  }
  pcre2_jit_stack_assign(state_->context, nullptr, state_->stack);
}

Matcher::~Matcher() = default;
Matcher::Matcher(Matcher&&) noexcept = default;
Matcher& Matcher::operator=(Matcher&&) noexcept = default;

void Matcher::reset(std::string_view text) {
  state_->text = text;
  state_->position = 0;
  state_->last_end = kNone;
}

int Matcher::search(size_t start) {
  State& s = *state_;
  const auto subject = reinterpret_cast<PCRE2_SPTR>(s.text.data());
  if (s.compiled->jit) {
    const int result =
        pcre2_jit_match(s.compiled->code, subject, s.text.size(), start, 0, s.data, s.context);
    if (result != PCRE2_ERROR_JIT_STACKLIMIT) return result;
  }
  // Without JIT, or where its stack is too small; this one takes its memory from the heap.
  return pcre2_match(s.compiled->code, subject, s.text.size(), start,
                     PCRE2_NO_UTF_CHECK | PCRE2_NO_JIT, s.data, s.context);
}

bool Matcher::next(Match& match) {
  State& s = *state_;
  while (s.position <= s.text.size()) {
    const int result = search(s.position);
    if (result == PCRE2_ERROR_NOMATCH) return false;
    if (result < 0) {
      fail("regular expression '{}' failed at byte {} of a document: {}", s.compiled->pattern,
           s.position, error_message(result));
    }
    const PCRE2_SIZE* ends = pcre2_get_ovector_pointer(s.data);
    if (ends[0] == ends[1] && ends[1] == s.last_end) {
      s.position += s.position < s.text.size()
                        ? utf8_length(static_cast<unsigned char>(s.text[s.position]))
                        : 1;
      continue;
    }
    s.position = s.last_end = ends[1];
    match = {ends[0], ends[1]};
    return true;
  }
  return false;
}

bool Matcher::contains(std::string_view text) {
  reset(text);
  Match ignored;
  return next(ignored);
}

std::string pattern_of_name(std::string_view name) {
  std::string pattern;
  for (const char c : name) {
    if (c == '.') pattern += '\\';
    pattern += c;
  }
  return pattern;
}

}  // namespace refract
