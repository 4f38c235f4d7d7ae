// The ordered rules of a run: which layer becomes what.
#pragma once
#include <filesystem>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "text/regex.h"
#include "transforms/kind.h"

namespace refract {

// One [[transform]] table: a regular expression on the whole module name, and a kind. A kind "none"
// leaves the layer alone.
struct Rule {
  std::string match;  // as written
  std::string kind;
  std::string table_json;              // the whole table
  std::shared_ptr<const Regex> regex;  // anchored at both ends
  std::shared_ptr<const Kind> make;    // null for "none"

  bool matches(std::string_view module) const;
};

// Rules in their order; the first that matches a module decides.
class Rules {
 public:
  // From a recipe's [[transform]] tables as JSON, an array; empty text: no rules. `where` names the
  // source in errors.
  static Rules parse(const std::string& transform_json, const std::string& where);

  const std::vector<Rule>& all() const { return rules_; }
  bool empty() const { return rules_.empty(); }
  // The index of the rule for a module; -1: none matches.
  int find(std::string_view module) const;

  // A rule as a recipe would hold it, and all of them as the JSON that parse() takes.
  std::string to_toml(size_t rule) const;
  std::string to_json() const;

 private:
  std::vector<Rule> rules_;
};

}  // namespace refract
