#include "core/config.h"

#include <cmath>
#include <nlohmann/json.hpp>
#include <numeric>

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
  const bool below = limits.open_min ? value <= limits.min : value < limits.min;
  if (below || value > limits.max || std::isnan(value)) {
    fail_usage("{} = {} is out of range: it must be {}", key, value, limits_text(limits));
  }
}

[[noreturn]] void wrong_type(const Field& field, const json& value) {
  fail_usage("{} takes {}, not {}", field.key, field.type, shown(to_toml_value(value)));
}

int64_t as_integer(const Field& field, const json& value) {
  if (value.is_number_integer()) return value.get<int64_t>();
  if (value.is_number_float()) {  // 1e6 is an integer to a person
    const double number = value.get<double>();
    if (number == std::floor(number) && std::abs(number) < 9e15)
      return static_cast<int64_t>(number);
  }
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
  field.set = [&value, field, limits](const json& v) {
    if (!v.is_number()) wrong_type(field, v);
    check_limits(field.key, v.get<double>(), limits);
    value = v.get<double>();
  };
  field.get = [&value] { return json(value); };
  field.default_value = to_toml_value(json(value));
}

void Fields::add(Key key, std::string& value, std::string help, std::vector<std::string> choices) {
  std::string type = choices.empty() ? "text" : fmt::format("{}", fmt::join(choices, " | "));
  Field& field = append(key, std::move(help), std::move(type));
  field.set = [&value, field, choices](const json& v) {
    std::string text;
    if (v.is_string()) {
      text = v.get<std::string>();
    } else if (v.is_number() || v.is_boolean()) {
      text = v.dump();
    } else {
      wrong_type(field, v);
    }
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
    value = read_list<double>(v, [&](const json& entry) {
      if (!entry.is_number()) wrong_type(field, v);
      return entry.get<double>();
    });
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
    value = read_list<std::string>(v, [&](const json& entry) {
      if (!entry.is_string()) wrong_type(field, v);
      return entry.get<std::string>();
    });
  };
  field.get = [&value] { return json(value); };
  field.default_value = to_toml_value(json(value));
}

void Fields::add_raw(Key key, std::string& json_text, std::string help) {
  Field& field = append(key, std::move(help), "tables");
  field.set = [&json_text](const json& v) { json_text = v.dump(); };
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

std::pair<std::string, json> parse_override(std::string_view text) {
  const size_t equals = text.find('=');
  if (equals == std::string_view::npos || equals == 0) {
    fail_usage("'{}' is not an override: write key=value, e.g. optimizer.lr=1e-4", text);
  }
  const std::string key(text.substr(0, equals)), value(text.substr(equals + 1));
  try {
    return {key, parse_toml("value = " + value, key).at("value")};
  } catch (const Error&) {
    return {key, json(value)};  // unquoted text
  }
}

}  // namespace refract
