#include "core/config.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <nlohmann/json.hpp>
#include <numeric>
#include <optional>

#include "core/error.h"
#include "core/toml.h"
#include "core/untrusted.h"

namespace refract {
namespace {

using nlohmann::json;

std::string limits_text(const Limits& limits) {
  std::string text;
  if (std::isfinite(limits.min))
    text = fmt::format("{} {}", limits.open_min ? ">" : ">=", limits.min);
  if (std::isfinite(limits.max))
    text += fmt::format("{}<= {}", text.empty() ? "" : ", ", limits.max);
  return text;
}

void check_limits(const std::string& key, double value, const Limits& limits) {
  if (!std::isfinite(value)) {
    fail_usage("{} = {} is out of range: it must be a finite number{}{}", key, value,
               limits_text(limits).empty() ? "" : ", ", limits_text(limits));
  }
  const bool below = limits.open_min ? value <= limits.min : value < limits.min;
  if (below || value > limits.max) {
    fail_usage("{} = {} is out of range: it must be {}", key, value, limits_text(limits));
  }
}

[[noreturn]] void wrong_type(const Field& field, const json& value) {
  fail_usage("{} takes {}, not {}", field.key, field.type, shown(to_toml_value(value)));
}

// Of tables: their text is JSON, which has no other numbers.
void check_finite(const std::string& key, const json& value) {
  if (value.is_number_float()) check_limits(key, value.get<double>(), Limits{});
  if (!value.is_structured()) return;
  for (const auto& [name, entry] : value.items()) check_finite(key + "." + name, entry);
}

constexpr double kExactIntegers = 9e15;  // below it a double holds every integer

bool is_whole(double number) {
  return number == std::floor(number) && std::abs(number) < kExactIntegers;
}

int64_t as_integer(const Field& field, const json& value) {
  if (value.is_number_integer()) return value.get<int64_t>();
  if (value.is_number_float()) {  // 1e6 is an integer to a person
    const double number = value.get<double>();
    if (is_whole(number)) return static_cast<int64_t>(number);
  }
  wrong_type(field, value);
}

double as_number(const Field& field, const json& value, const Limits& limits) {
  if (!value.is_number()) wrong_type(field, value);
  check_limits(field.key, value.get<double>(), limits);
  return value.get<double>();
}

// Whole numbers and truth values have one spelling, so that `batches = 10` can stand beside
// "all" and `tokens = 1e9` beside an expression. 1.10 has not: the text would be 1.1.
std::string as_text(const Field& field, const json& value) {
  if (value.is_string()) return value.get<std::string>();
  if (value.is_number_integer() || value.is_boolean()) return value.dump();
  if (value.is_number_float() && is_whole(value.get<double>()))
    return std::to_string(static_cast<int64_t>(value.get<double>()));
  if (value.is_number())
    fail_usage("{} takes text, not the number {}: put it in quotes", field.key,
               to_toml_value(value));
  wrong_type(field, value);
}

template <class T, class Read>
std::vector<T> read_list(const json& value, Read read) {
  std::vector<T> list;
  if (!value.is_array()) {
    list.push_back(read(value));  // one value stands for a list of one
  } else {
    for (const json& entry : value) list.push_back(read(entry));
  }
  return list;
}

int edit_distance(std::string_view a, std::string_view b) {
  std::vector<int> row(b.size() + 1);
  std::iota(row.begin(), row.end(), 0);
  for (size_t i = 1; i <= a.size(); ++i) {
    int diagonal = row[0];
    row[0] = static_cast<int>(i);
    for (size_t j = 1; j <= b.size(); ++j) {
      const int up = row[j];
      row[j] = std::min({row[j] + 1, row[j - 1] + 1, diagonal + (a[i - 1] != b[j - 1])});
      diagonal = up;
    }
  }
  return row.back();
}

}  // namespace

Field& Fields::append(Key key, std::string help, std::string type) {
  std::string text(key.text);
  if (find(text)) throw std::logic_error("setting described twice: " + text);
  fields_.push_back(
      {std::move(text), key.decides, std::move(help), std::move(type), "", "", {}, {}});
  return fields_.back();
}

void Fields::add(Key key, bool& value, std::string help) {
  Field& field = append(key, std::move(help), "true | false");
  field.set = [&value, field](const json& v) {
    if (!v.is_boolean()) wrong_type(field, v);
    value = v.get<bool>();
  };
  field.get = [&value] { return json(value); };
  field.default_value = value ? "true" : "false";
}

void Fields::add(Key key, int64_t& value, std::string help, Limits limits) {
  Field& field = append(key, std::move(help), "an integer");
  field.limits = limits_text(limits);
  field.set = [&value, field, limits](const json& v) {
    const int64_t number = as_integer(field, v);
    check_limits(field.key, static_cast<double>(number), limits);
    value = number;
  };
  field.get = [&value] { return json(value); };
  field.default_value = fmt::format("{}", value);
}

void Fields::add(Key key, double& value, std::string help, Limits limits) {
  Field& field = append(key, std::move(help), "a number");
  field.limits = limits_text(limits);
  field.set = [&value, field, limits](const json& v) { value = as_number(field, v, limits); };
  field.get = [&value] { return json(value); };
  field.default_value = to_toml_value(json(value));
}

void Fields::add(Key key, std::string& value, std::string help, std::vector<std::string> choices) {
  std::string type = choices.empty() ? "text" : fmt::format("{}", fmt::join(choices, " | "));
  Field& field = append(key, std::move(help), std::move(type));
  field.set = [&value, field, choices](const json& v) {
    const std::string text = as_text(field, v);
    if (!choices.empty() && std::find(choices.begin(), choices.end(), text) == choices.end()) {
      fail_usage("{} = \"{}\" is not one of {}; did you mean \"{}\"?", field.key, shown(text),
                 field.type, nearest_name(text, choices));
    }
    value = text;
  };
  field.get = [&value] { return json(value); };
  field.default_value = to_toml_value(json(value));
}

void Fields::add(Key key, std::vector<double>& value, std::string help) {
  Field& field = append(key, std::move(help), "a list of numbers");
  field.set = [&value, field](const json& v) {
    value =
        read_list<double>(v, [&](const json& entry) { return as_number(field, entry, Limits{}); });
  };
  field.get = [&value] { return json(value); };
  field.default_value = to_toml_value(json(value));
}

void Fields::add(Key key, std::vector<int64_t>& value, std::string help) {
  Field& field = append(key, std::move(help), "a list of integers");
  field.set = [&value, field](const json& v) {
    value = read_list<int64_t>(v, [&](const json& entry) { return as_integer(field, entry); });
  };
  field.get = [&value] { return json(value); };
  field.default_value = to_toml_value(json(value));
}

void Fields::add(Key key, std::vector<std::string>& value, std::string help) {
  Field& field = append(key, std::move(help), "a list of text");
  field.set = [&value, field](const json& v) {
    value = read_list<std::string>(v, [&](const json& entry) { return as_text(field, entry); });
  };
  field.get = [&value] { return json(value); };
  field.default_value = to_toml_value(json(value));
}

void Fields::add_raw(Key key, std::string& json_text, std::string help) {
  Field& field = append(key, std::move(help), "tables");
  field.set = [&json_text, key = field.key](const json& v) {
    check_finite(key, v);
    json_text = v.dump();
  };
  field.get = [&json_text] { return json_text.empty() ? json() : json::parse(json_text); };
  field.default_value = "none";
}

const Field* Fields::find(std::string_view key) const {
  for (const Field& field : fields_) {
    if (field.key == key) return &field;
  }
  return nullptr;
}

std::string Fields::nearest(std::string_view key) const {
  std::vector<std::string> keys;
  for (const Field& field : fields_) keys.push_back(field.key);
  return nearest_name(key, keys);
}

void Fields::set(std::string_view key, const json& value, std::string_view where) {
  const Field* field = find(key);
  if (!field) {
    fail_usage("{}: unknown key '{}'; did you mean '{}'?", where, shown(key), nearest(key));
  }
  try {
    field->set(value);
  } catch (const Error& error) {
    throw Error(fmt::format("{}: {}", where, error.what()), ExitCode::kUsage);
  }
}

namespace {

void set_tree(Fields& fields, const json& tree, const std::string& prefix, std::string_view where) {
  for (const auto& [key, value] : tree.items()) {
    const std::string path = prefix.empty() ? key : prefix + "." + key;
    if (value.is_object() && !fields.find(path)) {
      set_tree(fields, value, path, where);
    } else {
      fields.set(path, value, where);
    }
  }
}

}  // namespace

void Fields::set_all(const json& tree, std::string_view where) { set_tree(*this, tree, "", where); }

json Fields::to_json() const {
  json tree = json::object();
  for (const Field& field : fields_) {
    json* node = &tree;
    size_t begin = 0;
    for (size_t dot; (dot = field.key.find('.', begin)) != std::string::npos; begin = dot + 1) {
      node = &(*node)[field.key.substr(begin, dot - begin)];
    }
    json value = field.get();
    if (!value.is_null()) (*node)[field.key.substr(begin)] = std::move(value);
  }
  return tree;
}

namespace {

// Takes a dotted key out of a tree, and the tables that hold nothing without it.
void erase(json& tree, const std::string& key) {
  const size_t dot = key.find('.');
  const auto found = tree.find(key.substr(0, dot));
  if (found == tree.end()) return;
  if (dot != std::string::npos) {
    if (!found->is_object()) return;
    erase(*found, key.substr(dot + 1));
    if (!found->empty()) return;
  }
  tree.erase(found);
}

}  // namespace

json Fields::deciding(json tree, Decides least) const {
  for (const Field& field : fields_) {
    if (field.decides < least) erase(tree, field.key);
  }
  return tree;
}

std::string Fields::help_text() const {
  std::string out;
  std::string section;
  for (const Field& field : fields_) {
    const std::string name = field.key.substr(0, field.key.find('.'));
    if (name != section) out += fmt::format("{}[{}]\n", out.empty() ? "" : "\n", section = name);
    std::string type = field.limits.empty() ? field.type : field.type + " " + field.limits;
    out += fmt::format("  {:<28} {}\n  {:<28}   {}; default {}\n", field.key, field.help, "", type,
                       field.default_value);
  }
  return out;
}

std::string nearest_name(std::string_view name, const std::vector<std::string>& known) {
  constexpr size_t kLongest = 200;  // the time grows with the name, and no known one is longer
  name = name.substr(0, kLongest);
  std::string best;
  int best_distance = 0;
  for (const std::string& candidate : known) {
    int distance = 2 * edit_distance(name, candidate);
    // The last part alone often is what was meant: "lr" for "optimizer.lr".
    const size_t dot = candidate.rfind('.');
    if (dot != std::string::npos) {
      const size_t name_dot = name.rfind('.');
      const std::string_view last =
          name_dot == std::string_view::npos ? name : name.substr(name_dot + 1);
      distance = std::min(distance, 2 * edit_distance(last, candidate.substr(dot + 1)) + 1);
    }
    if (best.empty() || distance < best_distance) {
      best = candidate;
      best_distance = distance;
    }
  }
  return best;
}

namespace {

// The value that the whole of a text is in TOML: no comment, no second line, no list without its
// brackets.
std::optional<json> toml_value(const std::string& text) {
  if (text.find_last_not_of(" \t") == std::string::npos ||
      text[text.find_last_not_of(" \t")] == ',')
    return std::nullopt;
  try {
    const json tree = parse_toml("value = [" + text + "]", "the value");
    if (tree.size() == 1 && tree.at("value").is_array() && tree["value"].size() == 1)
      return tree["value"][0];
  } catch (const Error&) {
    return std::nullopt;  // not TOML
  }
  return std::nullopt;
}

// Numbers that people write and TOML does not know: .5, 5., +.5, 007.
std::optional<json> loose_number(const std::string& text) {
  constexpr const char* kParts = "+-.0123456789eE";
  if (text.empty() || text.find_first_not_of(kParts) != std::string::npos) return std::nullopt;
  const char* begin = text.data() + (text[0] == '+' ? 1 : 0);
  double number = 0;
  const char* end = text.data() + text.size();
  const auto [stop, error] = std::from_chars(begin, end, number);
  if (error != std::errc() || stop != end) return std::nullopt;
  if (is_whole(number) && text.find_first_of(".eE") == std::string::npos)
    return json(static_cast<int64_t>(number));
  return json(number);
}

}  // namespace

std::pair<std::string, json> parse_override(std::string_view text) {
  const size_t equals = text.find('=');
  if (equals == std::string_view::npos || equals == 0) {
    fail_usage("'{}' is not an override: write key=value, e.g. optimizer.lr=1e-4", text);
  }
  const std::string key(text.substr(0, equals)), value(text.substr(equals + 1));
  if (auto found = toml_value(value)) return {key, std::move(*found)};
  if (auto found = loose_number(value)) return {key, std::move(*found)};
  return {key, json(value)};  // unquoted text
}

}  // namespace refract
