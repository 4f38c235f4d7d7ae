#include "core/toml.h"

#define TOML_EXCEPTIONS 1
#include <toml++/toml.h>

#include <algorithm>
#include <cctype>
#include <fstream>
#include <nlohmann/json.hpp>
#include <sstream>
#include <vector>

#include "core/error.h"
#include "core/foreign_bytes.h"
#include "core/untrusted.h"

namespace refract {
namespace {

using nlohmann::json;

// Refuses a document whose names and brackets nest too deep, before the parser builds and frees its
// tables by calling itself. A dot of a name ("a.b.c = 1", "[a.b.c]") is a level as a bracket is.
class NestingCheck {
 public:
  NestingCheck(std::string_view text, std::string_view where) : text_(text), where_(where) {}

  void run() {
    while (at_ < text_.size()) step();
  }

 private:
  void step() {
    const char c = text_[at_];
    if (c == '"' || c == '\'') {
      skip_string(c);
      return;
    }
    ++at_;
    if (c == '#') {
      at_ = std::min(text_.find('\n', at_), text_.size());
    } else if (c == '[' || c == '{') {
      dots_.push_back(0);
    } else if (c == ']' || c == '}') {
      if (dots_.size() > 1) {
        total_ -= dots_.back();
        dots_.pop_back();
      }
    } else if (c == '.') {
      ++dots_.back();
      ++total_;
    } else if (c == '\n' || c == ',') {  // what follows is another name or value
      if (c == '\n') ++line_;
      total_ -= dots_.back();
      dots_.back() = 0;
    }
    if (total_ + static_cast<int64_t>(dots_.size()) > kMaxDepth) {
      fail_usage("{}, line {}: names and brackets nest deeper than {} levels", where_, line_,
                 kMaxDepth);
    }
  }

  // A string of one line or of several; an unfinished one ends the check, and the parser says so.
  void skip_string(char quote) {
    const std::string three(3, quote);
    const bool lines = text_.substr(at_).starts_with(three);
    const std::string_view end = lines ? std::string_view(three) : std::string_view(&quote, 1);
    for (at_ += end.size(); at_ < text_.size(); ++at_) {
      if (text_[at_] == '\n') {
        if (!lines) return;
        ++line_;
      } else if (text_[at_] == '\\' && quote == '"') {
        ++at_;
      } else if (text_.substr(at_).starts_with(end)) {
        at_ += end.size();
        return;
      }
    }
  }

  std::string_view text_, where_;
  size_t at_ = 0;
  int64_t line_ = 1, total_ = 0;
  std::vector<int64_t> dots_ = {0};  // of the name that is read, in each bracket that is open
};

json to_json(const toml::node& node) {
  if (const auto* table = node.as_table()) {
    json object = json::object();
    for (const auto& [key, value] : *table) object[std::string(key.str())] = to_json(value);
    return object;
  }
  if (const auto* array = node.as_array()) {
    json list = json::array();
    for (const auto& value : *array) list.push_back(to_json(value));
    return list;
  }
  if (const auto* value = node.as_string()) return value->get();
  if (const auto* value = node.as_integer()) return value->get();
  if (const auto* value = node.as_floating_point()) return value->get();
  if (const auto* value = node.as_boolean()) return value->get();
  fail_usage("line {}: dates and times are not used in refract's settings",
             node.source().begin.line);
}

// JSON's escapes are TOML's, but TOML wants one for DEL as well.
std::string escaped(const std::string& text) {
  std::string out;
  // Settings are UTF-8 long before they are written.
  for (const char c : json(text).dump(-1, ' ', false, json::error_handler_t::replace))
    out += c == '\x7f' ? "\\u007f" : std::string(1, c);
  return out;
}

std::string quote(const std::string& text) {
  const bool plain = std::none_of(text.begin(), text.end(), [](unsigned char c) {
    return c == '\'' || (c < ' ' && c != '\t') || c == '\x7f';
  });
  if (plain && text.find('\\') != std::string::npos)
    return "'" + text + "'";  // regular expressions stay readable
  return escaped(text);
}

bool is_bare(std::string_view key) {
  return !key.empty() && std::all_of(key.begin(), key.end(), [](unsigned char c) {
    return std::isalnum(c) || c == '_' || c == '-';
  });
}

std::string key_text(const std::string& key) { return is_bare(key) ? key : escaped(key); }

bool is_table_array(const json& value) {
  return value.is_array() && !value.empty() &&
         std::all_of(value.begin(), value.end(), [](const json& v) { return v.is_object(); });
}

void write_table(const json& table, const std::string& prefix, std::string& out) {
  for (const auto& [key, value] : table.items()) {
    if (value.is_object() || is_table_array(value) || value.is_null()) continue;
    out += key_text(key) + " = " + to_toml_value(value) + "\n";
  }
  for (const auto& [key, value] : table.items()) {
    const std::string path = prefix.empty() ? key_text(key) : prefix + "." + key_text(key);
    if (value.is_object()) {
      out += "\n[" + path + "]\n";
      write_table(value, path, out);
    } else if (is_table_array(value)) {
      for (const json& entry : value) {
        out += "\n[[" + path + "]]\n";
        write_table(entry, path, out);
      }
    }
  }
}

}  // namespace

json parse_toml(std::string_view text, std::string_view where) {
  NestingCheck(text, where).run();
  try {
    return to_json(toml::parse(text, where));
  } catch (const toml::parse_error& error) {
    // "Error while parsing key-value pair: expected '=', saw 'a'": what follows the colon.
    std::string what(error.description());
    if (const size_t colon = what.find(": "); colon != std::string::npos) what.erase(0, colon + 2);
    fail_usage("{}, line {}, column {}: this is not TOML: {}", where, error.source().begin.line,
               error.source().begin.column, shown(what));
  }
}

json read_toml(const std::filesystem::path& path) {
  std::error_code ignored;
  if (std::filesystem::is_directory(path, ignored)) {
    fail_usage("'{}' is a folder, not a TOML file", path.string());
  }
  std::ifstream file(path, std::ios::binary);
  if (!file)
    fail_usage("can't read the recipe '{}': no such file, or no permission", path.string());
  std::stringstream text;
  text << file.rdbuf();
  const std::string bytes = text.str();
  if (bytes.starts_with("\xff\xfe") || bytes.starts_with("\xfe\xff")) {
    fail_usage("the recipe '{}' is UTF-16 text; save it as UTF-8", path.string());
  }
  if (const std::string kind = foreign_bytes(bytes); !kind.empty()) {
    fail_usage("'{}' is not a recipe: it is {}", path.string(), kind);
  }
  return parse_toml(bytes, path.string());
}

std::string to_toml_value(const json& value) {
  if (value.is_string()) return quote(value.get<std::string>());
  if (value.is_number_float()) {
    const double number = value.get<double>();
    if (std::isnan(number)) return "nan";
    if (std::isinf(number)) return number > 0 ? "inf" : "-inf";
    std::string text = fmt::format("{}", number);
    return text.find_first_of(".e") == std::string::npos ? text + ".0" : text;
  }
  if (value.is_array()) {
    std::string out = "[";
    for (const json& entry : value) out += (out.size() > 1 ? ", " : "") + to_toml_value(entry);
    return out + "]";
  }
  if (value.is_object()) {
    std::string out = "{";
    for (const auto& [key, entry] : value.items()) {
      out += (out.size() > 1 ? ", " : " ") + key_text(key) + " = " + to_toml_value(entry);
    }
    return out + " }";
  }
  return value.dump();
}

std::string to_toml(const json& tree) {
  std::string out;
  write_table(tree, "", out);
  if (!out.empty() && out.front() == '\n') out.erase(0, 1);
  return out;
}

}  // namespace refract
