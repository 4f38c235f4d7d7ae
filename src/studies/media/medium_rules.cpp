#include "studies/media/medium_rules.h"

#include <nlohmann/json.hpp>

#include "core/config.h"
#include "core/error.h"
#include "core/toml.h"
#include "transforms/kind.h"

namespace refract {
namespace {

using nlohmann::json;

json rules_of_kind(const std::string& text) {
  json table = {{"kind", text}};
  if (text.starts_with('{')) table = parse_override("kind=" + text).second;
  if (!table.is_object())
    fail_usage("--kind '{}' is neither a kind's name nor a table {{kind = ..., ...}}", text);
  const auto kind = make_kind(table.dump(), "--kind");
  json rules = json::array();
  const auto add = [&](const char* match) {
    json rule = table;
    rule["match"] = match;
    rules.push_back(std::move(rule));
  };
  if (kind->transforms_linear()) add(R"(model\.layers\.\d+\.(self_attn|mlp)\.\w+_proj)");
  if (kind->transforms_attention()) add(R"(model\.layers\.\d+\.self_attn)");
  return rules;
}

json rules_of_file(const std::string& file) {
  json tree = read_toml(file);
  if (!tree.contains("transform")) fail_usage("--rules: '{}' holds no [[transform]] rule", file);
  return tree["transform"];
}

}  // namespace

std::vector<std::string> with_medium(const MediumChoice& choice,
                                     const std::vector<std::string>& overrides) {
  if (choice.kind.empty() && choice.rules.empty()) return overrides;
  if (!choice.kind.empty() && !choice.rules.empty())
    fail_usage("--kind and --rules exclude each other");
  const json rules =
      choice.rules.empty() ? rules_of_kind(choice.kind) : rules_of_file(choice.rules);
  std::vector<std::string> all = {"transform=" + to_toml_value(rules)};
  all.insert(all.end(), overrides.begin(), overrides.end());
  return all;
}

}  // namespace refract
