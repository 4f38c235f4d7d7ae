#include "transforms/rules.h"

#include <nlohmann/json.hpp>

#include "core/error.h"
#include "core/toml.h"

namespace refract {
namespace {

using nlohmann::json;

std::string text_of(const json& table, const char* key, const std::string& where) {
  if (!table.contains(key)) fail_usage("{}: '{}' is missing; write {} = '...'", where, key, key);
  if (!table[key].is_string()) fail_usage("{}: '{}' takes text", where, key);
  return table[key].get<std::string>();
}

Rule parse_rule(json table, size_t number, const std::string& source) {
  std::string where = fmt::format("{}: transform rule {}", source, number);
  if (!table.is_object())
    fail_usage("{} is not a table; write [[transform]] with match and kind below it", where);
  Rule rule;
  rule.table_json = table.dump();
  rule.match = text_of(table, "match", where);
  rule.kind = text_of(table, "kind", where);
  where += fmt::format(" ('{}')", rule.match);
  try {
    rule.regex = std::make_shared<Regex>("\\A(?:" + rule.match + ")\\z");
  } catch (const Error& error) {
    fail_usage("{}: match is not a regular expression: {}", where, error.what());
  }
  table.erase("match");
  if (rule.kind != "none") {
    rule.make = make_kind(table.dump(), where);
  } else if (table.size() > 1) {
    table.erase("kind");
    fail_usage("{}: kind \"none\" has no parameter '{}'", where, table.begin().key());
  }
  return rule;
}

}  // namespace

bool Rule::matches(std::string_view module) const { return Matcher(*regex).contains(module); }

Rules Rules::parse(const std::string& transform_json, const std::string& where) {
  Rules rules;
  if (transform_json.empty()) return rules;
  json value = json::parse(transform_json);
  if (value.is_null()) return rules;
  if (!value.is_array()) {
    fail_usage("{}: 'transform' is an array of tables: write [[transform]] with match and kind",
               where);
  }
  for (size_t i = 0; i < value.size(); ++i)
    rules.rules_.push_back(parse_rule(value[i], i + 1, where));
  return rules;
}

int Rules::find(std::string_view module) const {
  for (size_t i = 0; i < rules_.size(); ++i) {
    if (rules_[i].matches(module)) return static_cast<int>(i);
  }
  return -1;
}

std::string Rules::to_json() const {
  if (rules_.empty()) return "";
  json all = json::array();
  for (const Rule& rule : rules_) all.push_back(json::parse(rule.table_json));
  return all.dump();
}

std::string Rules::to_toml(size_t rule) const {
  const json table = json::parse(rules_[rule].table_json);
  return refract::to_toml(json{{"transform", json::array({table})}});
}

}  // namespace refract
