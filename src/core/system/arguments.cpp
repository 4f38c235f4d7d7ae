#include "core/system/arguments.h"

#include <CLI/CLI.hpp>
#include <algorithm>
#include <charconv>
#include <cmath>
#include <type_traits>

#include "core/error.h"
#include "core/paths.h"

namespace refract {
namespace {

// CLI11 takes the brackets off an argument in brackets and cuts what is in them at commas. A mark
// in front keeps it from doing so; as_typed() takes it off.
constexpr char kMark = '\x01';

// Whether an argument names files or folders: every positional but settings and the name of a kind.
bool names_path(const std::string& name) {
  for (const char* option : {"--out", "--data", "--tokenizer", "--plugin"}) {
    if (name == option) return true;
  }
  return !name.starts_with('-') && name != "overrides" && name != "kind";
}

std::string text_value(const std::string& name, const std::string& typed) {
  std::string text = as_typed(typed);
  if (!names_path(name)) return text;
  if (text.empty()) fail_usage("{} is empty; does it come from a variable that is not set?", name);
  return expand_path(text);
}

// The whole of a text as a number.
template <class T>
T number_value(const std::string& name, const std::string& typed) {
  const std::string text = as_typed(typed);
  const char* begin = text.data() + (text.starts_with('+') ? 1 : 0);
  const char* end = text.data() + text.size();
  double value = 0;
  const auto [stop, error] = std::from_chars(begin, end, value);
  if (text.empty() || error != std::errc() || stop != end)
    fail_usage("{} takes a number, not '{}'", name, text);
  if (!std::isfinite(value)) fail_usage("{} takes a finite number, not '{}'", name, text);
  if constexpr (std::is_integral_v<T>) {
    T whole = 0;  // what has more digits than a double, too
    const auto [rest, wrong] = std::from_chars(begin, end, whole);
    if (wrong == std::errc() && rest == end) return whole;
    if (value != std::floor(value) || std::abs(value) > 9e15)
      fail_usage("{} takes an integer, not '{}'", name, text);
  }
  return static_cast<T>(value);
}

CLI::Option* add(CLI::App& app, const std::string& name, CLI::callback_t callback,
                 const std::string& help, const char* type) {
  return app.add_option(name, std::move(callback), help)->type_name(type);
}

CLI::callback_t into(const std::string& name, std::vector<std::string>& values) {
  return [name, &values](const CLI::results_t& given) {
    values.clear();
    for (const std::string& typed : given) values.push_back(text_value(name, typed));
    return true;
  };
}

CLI::callback_t into(const std::string& name, std::string& value) {
  return [name, &value](const CLI::results_t& given) {
    value = text_value(name, given.back());
    return true;
  };
}

template <class T>
void add_number(CLI::App& app, const std::string& name, T& value, const std::string& help,
                const char* type) {
  const auto read = [name, &value](const CLI::results_t& given) {
    value = number_value<T>(name, given.back());
    return true;
  };
  add(app, name, read, help, type)->default_str(fmt::format("{}", value));
}

}  // namespace

std::string marked(const char* argument) {
  const std::string text = argument;
  const bool brackets = text.size() >= 2 && text.front() == '[' && text.back() == ']';
  return brackets ? kMark + text : text;
}

std::string as_typed(const std::string& argument) {
  return argument.starts_with(kMark) ? argument.substr(1) : argument;
}

std::vector<std::string> words_of(const std::string& text) {
  std::vector<std::string> words;
  size_t begin = 0;
  for (size_t comma; begin <= text.size(); begin = comma + 1) {
    comma = std::min(text.find(',', begin), text.size());
    words.push_back(text.substr(begin, comma - begin));
  }
  return words;
}

double share_of(const std::string& option, const std::string& text) {
  double value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  const std::string rest(end, text.data() + text.size());
  if (error != std::errc() || !(rest.empty() || rest == "%"))
    fail_usage("{}: '{}' is not a share; write 2% or 0.02", option, text);
  return rest.empty() ? value : value / 100;
}

std::vector<double> numbers_of(const std::string& option, const std::string& text) {
  std::vector<double> numbers;
  for (const std::string& word : words_of(text))
    numbers.push_back(number_value<double>(option, word));
  return numbers;
}

void CommandLine::positional(const std::string& name, std::string& value, const std::string& help,
                             bool required) {
  add(app_, name, into(name, value), help, "TEXT")->required(required);
}
void CommandLine::positional(const std::string& name, std::vector<std::string>& values,
                             const std::string& help, bool required) {
  add(app_, name, into(name, values), help, "TEXT")
      ->expected(CLI::detail::expected_max_vector_size)
      ->required(required);
}
void CommandLine::option(const std::string& name, std::string& value, const std::string& help,
                         bool required) {
  auto* option = add(app_, name, into(name, value), help, "TEXT")->required(required);
  if (!value.empty()) option->default_str(value);
}
void CommandLine::option(const std::string& name, std::vector<std::string>& values,
                         const std::string& help, bool required) {
  // One value each time it is given: what follows it are key=value overrides.
  add(app_, name, into(name, values), help, "TEXT")
      ->expected(CLI::detail::expected_max_vector_size)
      ->required(required)
      ->allow_extra_args(false);
}
void CommandLine::option(const std::string& name, int64_t& value, const std::string& help) {
  add_number(app_, name, value, help, "INT");
}
void CommandLine::option(const std::string& name, double& value, const std::string& help) {
  add_number(app_, name, value, help, "FLOAT");
}
void CommandLine::flag(const std::string& name, bool& value, const std::string& help) {
  app_.add_flag(name, value, help);
}

void CommandLine::rest(std::vector<std::string>& words, const std::string& help) {
  app_.prefix_command();
  app_.description(app_.get_description() + "\nAfter the options follows " + help);
  app_.parse_complete_callback([&app = app_, &words] {
    words.clear();
    for (const std::string& typed : app.remaining()) words.push_back(as_typed(typed));
  });
}

}  // namespace refract
