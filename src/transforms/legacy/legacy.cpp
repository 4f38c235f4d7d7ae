#include "transforms/legacy/legacy.h"

#include <algorithm>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <set>

#include "core/config.h"
#include "core/error.h"
#include "core/toml.h"
#include "text/regex.h"
#include "transforms/legacy/legacy_analog.h"
#include "transforms/legacy/legacy_yaml.h"

namespace refract {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

json optical(const char* match, json parameters) {
  parameters["match"] = match;
  parameters["kind"] = "optical";
  return parameters;
}

// ---- Bit flips

bool is_flip_parameter(const std::string& key) {
  if (!key.starts_with("x_") && !key.starts_with("w_")) return false;
  const std::string rest = key.substr(2);
  return rest == "p_exp" || rest == "p_frac" || rest == "zero_out_t";
}

// Seeds of the reference's masks; ours are streams of the run's seed.
bool is_flip_seed(const std::string& key) {
  return key == "x_seed_exp" || key == "x_seed_frac" || key == "w_seed_exp" || key == "w_seed_frac";
}

// What is null or left out does not happen there; the kind's own defaults are the published rates.
json bit_flip(const std::string& match, const json& given) {
  json rule = {{"match", match}, {"kind", "bit_flip"}};
  for (const char* key :
       {"x_p_exp", "x_p_frac", "x_zero_out_t", "w_p_exp", "w_p_frac", "w_zero_out_t"})
    rule[key] = 0.0;
  for (const auto& [key, value] : given.items()) {
    if (!is_flip_seed(key) && !value.is_null()) rule[key] = value;
  }
  return rule;
}

// ---- TOML

// A file of bit flips has no attention, and no parameter of another medium. Without parameters it
// is one of adapters alone.
bool has_bit_flips(const json& tree) {
  if (tree.contains("attention") || !tree.contains("fc") || !tree["fc"].is_object()) return false;
  const json& fc = tree["fc"];
  if (fc.empty()) return tree.value("use_lora", json(false)) == json(true);
  return std::all_of(fc.items().begin(), fc.items().end(), [](const auto& item) {
    return is_flip_parameter(item.key()) || is_flip_seed(item.key());
  });
}

const json& table(const json& tree, const char* name, const fs::path& path) {
  if (!tree.contains(name) || !tree[name].is_object())
    fail_usage("{}: the table [{}] is missing", path.string(), name);
  return tree[name];
}

json lora_over(json rule, const json& tree, const fs::path& path) {
  json lora = {
      {"match", rule["match"]}, {"kind", "lora"}, {"r", 32}, {"alpha", 32}, {"adapter", "merged"}};
  const std::map<std::string, std::string> names = {
      {"r", "r"}, {"lora_alpha", "alpha"}, {"lora_dropout", "dropout"}};
  const json given = tree.value("lora", json::object());
  for (const auto& [key, value] : given.items()) {
    const auto known = names.find(key);
    if (known == names.end()) {
      fail_usage("{}: [lora] has no parameter '{}'; its parameters are r, lora_alpha, lora_dropout",
                 path.string(), key);
    }
    lora[known->second] = value;
  }
  rule.erase("match");
  lora["over"] = std::move(rule);
  return lora;
}

json toml_rules(const fs::path& path) {
  const json tree = read_toml(path);
  const std::vector<std::string> known = {"use_lora", "attention", "fc", "lora"};
  for (const auto& [key, value] : tree.items()) {
    if (std::find(known.begin(), known.end(), key) == known.end())
      fail_usage("{}: unknown key '{}'; did you mean '{}'?", path.string(), key,
                 nearest_name(key, known));
  }
  const json use_lora = tree.value("use_lora", json(false));
  if (!use_lora.is_boolean()) fail_usage("{}: use_lora takes true or false", path.string());
  constexpr const char* kLinear = R"(model\.layers\.\d+\.(self_attn|mlp)\.\w+_proj)";
  const bool flips = has_bit_flips(tree);
  const json& fc = table(tree, "fc", path);
  json linear = flips ? bit_flip(kLinear, fc) : optical(kLinear, fc);
  if (use_lora.get<bool>()) linear = lora_over(std::move(linear), tree, path);
  if (flips) return json::array({linear});
  return {optical(R"(model\.layers\.\d+\.self_attn)", table(tree, "attention", path)), linear};
}

// ---- YAML

// A module's name in torchtitan: "model.layers.3.mlp.up_proj" -> "layers.3.feed_forward.w3".
std::string torchtitan_name(std::string name) {
  const std::pair<const char*, const char*> parts[] = {
      {"model.layers.", "layers."}, {".self_attn", ".attention"}, {".mlp", ".feed_forward"},
      {".q_proj", ".wq"},           {".k_proj", ".wk"},           {".v_proj", ".wv"},
      {".o_proj", ".wo"},           {".gate_proj", ".w1"},        {".down_proj", ".w2"},
      {".up_proj", ".w3"}};
  for (const auto& [ours, theirs] : parts) {
    const size_t at = name.find(ours);
    if (at != std::string::npos) name.replace(at, std::string_view(ours).size(), theirs);
  }
  return name;
}

std::string alternatives(const std::vector<std::string>& texts) {
  return texts.size() == 1 ? texts[0] : fmt::format("({})", fmt::join(texts, "|"));
}

// Those that a file's entries decide for: bit flips are of linear layers alone.
std::vector<std::string> decided(const std::vector<std::string>& modules, const LegacyYaml& file) {
  std::vector<std::string> all = modules;
  if (!file.flavor.empty())
    std::erase_if(all, [](const std::string& name) { return name.ends_with(".self_attn"); });
  return all;
}

// "model.layers.3.mlp.up_proj" -> ("3", "mlp.up_proj").
std::pair<std::string, std::string> split(const std::string& module) {
  const std::string_view prefix = "model.layers.";
  const size_t dot = module.find('.', prefix.size());
  return {module.substr(prefix.size(), dot - prefix.size()), module.substr(dot + 1)};
}

class YamlRules {
 public:
  YamlRules(const fs::path& path, const std::vector<std::string>& modules)
      : path_(path), file_(read_legacy_yaml(path)), modules_(decided(modules, file_)) {
    for (const std::string& module : modules_) layers_.insert(split(module).first);
    for (const LegacyEntry& entry : file_.entries) expressions_.push_back(compile(entry));
    torchtitan_ = std::ranges::any_of(modules_, [this](const std::string& module) {
      const std::string other = torchtitan_name(module);
      for (size_t i = 0; i < expressions_.size(); ++i) {
        if (!matches(i, module) && matches(i, other)) return true;
      }
      return false;
    });
  }

  json rules() {
    // The modules of each entry, those of `default` last.
    std::vector<std::vector<std::string>> chosen(file_.entries.size() + 1);
    for (const std::string& module : modules_) chosen[choose(module)].push_back(module);
    json all = json::array();
    for (size_t i = 0; i < file_.entries.size(); ++i) {
      const LegacyEntry& entry = file_.entries[i];
      if (chosen[i].empty()) {
        check_unused(i);
      } else {
        add_rules(expression(i, chosen[i]), chosen[i], entry.parameters, all);
      }
    }
    if (!chosen.back().empty())
      add_rules(exactly(chosen.back()), chosen.back(), file_.fallback, all);
    return all;
  }

 private:
  Regex compile(const LegacyEntry& entry) const {
    const std::string text = file_.use_regex ? entry.pattern : pattern_of_name(entry.pattern);
    try {
      return Regex("\\A(?:" + text + ")\\z");
    } catch (const Error& error) {
      fail_usage("{}, line {}: '{}' is not a regular expression: {}", path_.string(), entry.line,
                 entry.pattern, error.what());
    }
  }

  bool matches(size_t entry, const std::string& name) const {
    return Matcher(expressions_[entry]).contains(name);
  }

  size_t choose(const std::string& module) const {
    const std::string other = torchtitan_name(module);
    for (size_t i = 0; i < expressions_.size(); ++i) {
      if (matches(i, module) || matches(i, other)) return i;
    }
    if (file_.fallback.empty()) {
      fail_usage("{}: no entry matches '{}' (torchtitan: '{}'), and there is no entry `default`",
                 path_.string(), module, other);
    }
    return expressions_.size();
  }

  // An entry that decides nothing is a mistake, unless it says to leave something alone.
  void check_unused(size_t i) const {
    const LegacyEntry& entry = file_.entries[i];
    if (entry.parameters == "null") return;
    if (matches(i, "lm_head") || matches(i, "output")) {
      fail_usage(
          "{}, line {}: '{}' stands for the model's head, which is never transformed; write null",
          path_.string(), entry.line, entry.pattern);
    }
    fail_usage(
        "{}, line {}: '{}' matches no module, or entries before it matched them all; a name is for "
        "example '{}' or '{}'",
        path_.string(), entry.line, entry.pattern, modules_.back(),
        torchtitan_name(modules_.back()));
  }

  // The entry's own expression where it is one on our names, else one that names its modules.
  std::string expression(size_t i, const std::vector<std::string>& chosen) const {
    for (const std::string& module : modules_) {
      if (!matches(i, module) && matches(i, torchtitan_name(module))) return exactly(chosen);
    }
    return file_.use_regex ? file_.entries[i].pattern : pattern_of_name(file_.entries[i].pattern);
  }

  // An expression that matches these modules and no other.
  std::string exactly(const std::vector<std::string>& chosen) const {
    std::map<std::string, std::vector<std::string>> layers_of;  // by the name within the layer
    for (const std::string& module : chosen) {
      const auto [layer, rest] = split(module);
      layers_of[rest].push_back(layer);
    }
    std::map<std::vector<std::string>, std::vector<std::string>> rests_of;
    for (const auto& [rest, layers] : layers_of) rests_of[layers].push_back(pattern_of_name(rest));
    std::vector<std::string> parts;
    for (const auto& [layers, rests] : rests_of) {
      const bool every = layers.size() == layers_.size();
      parts.push_back(fmt::format(R"(model\.layers\.{}\.{})", every ? "\\d+" : alternatives(layers),
                                  alternatives(rests)));
    }
    return fmt::format("{}", fmt::join(parts, "|"));
  }

  // Whether quantiles are what a module takes that no one has told.
  bool has_quantiles(const std::string& module) const {
    return torchtitan_ || !module.ends_with(".self_attn");
  }

  // The rule of an entry that decides for `chosen`; two where its modules differ in what they take
  // for a parameter that it leaves out.
  void add_rules(const std::string& match, const std::vector<std::string>& chosen,
                 const std::string& parameters, json& all) const {
    json given = json::parse(parameters);
    if (given.is_null()) {
      all.push_back({{"match", match}, {"kind", "none"}});
      return;
    }
    if (!file_.flavor.empty()) {
      all.push_back(bit_flip(match, given));
      return;
    }
    if (given.contains("q_quantiles")) {
      if (given["q_quantiles"].is_null()) given.erase("q_quantiles");
      all.push_back(optical(match.c_str(), std::move(given)));
      return;
    }
    std::vector<std::string> with, without;
    for (const std::string& module : chosen)
      (has_quantiles(module) ? with : without).push_back(module);
    const bool one = with.empty() || without.empty();
    if (!without.empty()) all.push_back(optical((one ? match : exactly(without)).c_str(), given));
    if (with.empty()) return;
    given["q_quantiles"] = {0.001, 0.999};
    all.push_back(optical((one ? match : exactly(with)).c_str(), std::move(given)));
  }

  fs::path path_;
  LegacyYaml file_;
  std::vector<std::string> modules_;
  std::set<std::string> layers_;
  std::vector<Regex> expressions_;
  bool torchtitan_ = false;  // whether an entry stands for a module by torchtitan's name alone
};

}  // namespace

std::string legacy_rules(const fs::path& path, const std::vector<std::string>& modules) {
  const std::string extension = path.extension();
  if (extension == ".toml") return toml_rules(path).dump();
  if (extension == ".yaml" || extension == ".yml") {
    if (is_legacy_analog(path)) return legacy_analog_rules(path);
    return YamlRules(path, modules).rules().dump();
  }
  fail_usage(
      "transform.legacy = \"{}\" is not a rule file: its name must end in .toml, .yaml or .yml",
      path.string());
}

}  // namespace refract
