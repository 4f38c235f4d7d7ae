#include "formats/peft_files.h"

#include <algorithm>
#include <array>
#include <cctype>
#include <fstream>
#include <map>
#include <nlohmann/json.hpp>
#include <set>
#include <string_view>

#include "core/error.h"
#include "core/files.h"
#include "core/untrusted.h"
#include "text/regex.h"

namespace refract {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;  // patterns count in the order of the file

// peft's own default of r and lora_alpha.
constexpr double kDefault = 8;

// Of "transformer.h.0.mlp.c_fc": "mlp.c_fc".
std::string behind_layer(const std::string& name) {
  const size_t digit = name.find_first_of("0123456789");
  return name.substr(name.find('.', digit) + 1);
}

// Names as short as they can be: "self_attn.q_proj" where every layer's has an adapter.
std::vector<std::string> target_modules(const std::vector<PeftAdapter>& adapters, int64_t layers) {
  std::map<std::string, int64_t> count;
  for (const PeftAdapter& adapter : adapters) ++count[behind_layer(adapter.module)];
  std::set<std::string> targets;
  for (const PeftAdapter& adapter : adapters) {
    const std::string suffix = behind_layer(adapter.module);
    targets.insert(count[suffix] == layers ? suffix : adapter.module);
  }
  return {targets.begin(), targets.end()};
}

// Keys that say how an adapter was made, where it stands, or what is read below. Which modules are
// adapted is read off the tensors.
constexpr std::array<std::string_view, 26> kKnown = {"alpha_pattern",
                                                     "auto_mapping",
                                                     "base_model_name_or_path",
                                                     "bias",
                                                     "corda_config",
                                                     "eva_config",
                                                     "exclude_modules",
                                                     "fan_in_fan_out",
                                                     "inference_mode",
                                                     "layers_pattern",
                                                     "layers_to_transform",
                                                     "init_lora_weights",
                                                     "loftq_config",
                                                     "lora_alpha",
                                                     "lora_dropout",
                                                     "lora_ga_config",
                                                     "megatron_core",
                                                     "peft_type",
                                                     "peft_version",
                                                     "qalora_group_size",
                                                     "r",
                                                     "rank_pattern",
                                                     "revision",
                                                     "runtime_config",
                                                     "target_modules",
                                                     "task_type"};

// What peft can merge into the model below, after which there is no adapter left to understand.
constexpr std::array<std::string_view, 6> kMergeable = {
    "bias",     "init_lora_weights", "modules_to_save", "trainable_token_indices",
    "use_dora", "use_rslora"};

template <class Names>
bool is_among(const Names& names, std::string_view key) {
  return std::find(names.begin(), names.end(), key) != names.end();
}

[[noreturn]] void refuse(const fs::path& path, const std::string& key, const Json& value,
                         const std::string& reason) {
  std::string advice;
  if (is_among(kMergeable, key)) {
    advice =
        "; merge it into its model with peft (merge_and_unload, then save_pretrained) and start "
        "from that";
  }
  fail("'{}': {} = {} is not supported: {}{}", path.string(), shown(key), shown(value.dump()),
       reason, advice);
}

// Whether a value is what peft writes for a feature that is not used.
bool is_off(const Json& value) {
  return value.is_null() || value == Json(false) || (value.is_structured() && value.empty());
}

// These draw the first values of A and B and leave the model's weights alone. The others move a
// part of the weights into the adapter, which then fits no other model.
void check_initialization(const Json& config, const fs::path& path) {
  const Json init = config.value("init_lora_weights", Json(true));
  if (init.is_boolean() || init.is_null()) return;
  std::string name = init.is_string() ? init.get<std::string>() : "";
  std::transform(name.begin(), name.end(), name.begin(),
                 [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  static const std::set<std::string> plain = {"gaussian", "eva", "orthogonal", "mica"};
  if (plain.contains(name)) return;
  std::string reason =
      "it changes the weights that the adapter stands on, and the adapter means nothing without "
      "them";
  static const std::set<std::string> convertible = {"olora", "corda", "lora_ga"};
  if (name.starts_with("pissa") || convertible.contains(name)) {
    reason +=
        " (after training, peft's save_pretrained with path_initial_model_for_weight_conversion "
        "writes a plain one)";
  }
  refuse(path, "init_lora_weights", init, reason);
}

// By what is allowed: a key that is not known may be a feature that changes what is computed.
void check_supported(const Json& config, const fs::path& path) {
  const auto only = [&](const char* key, const std::string& value) {
    if (config.contains(key) && !config[key].is_null() && config[key] != Json(value))
      refuse(path, key, config[key], fmt::format("refract's adapters need \"{}\"", value));
  };
  only("peft_type", "LORA");
  only("bias", "none");
  for (const auto& [key, value] : config.items()) {
    if (!is_among(kKnown, key) && !is_off(value))
      refuse(path, key, value, "refract's adapters are plain LoRA without it");
  }
  check_initialization(config, path);
}

// A positive number of the file.
double number_of(const Json& value, const std::string& key, const fs::path& path) {
  if (!value.is_number() || value.get<double>() <= 0)
    fail("'{}': {} = {} must be a positive number", path.string(), shown(key), shown(value.dump()));
  return value.get<double>();
}

}  // namespace

std::string peft_module(const std::string& module, const std::string& family) {
  struct Names {
    const char* layers;
    std::map<std::string, std::string> modules;
  };
  static const std::map<std::string, Names> families = {
      {"gpt2",
       {"transformer.h.",
        {{"self_attn.o_proj", "attn.c_proj"},
         {"mlp.up_proj", "mlp.c_fc"},
         {"mlp.down_proj", "mlp.c_proj"}}}},
      {"gpt_neox",
       {"gpt_neox.layers.",
        {{"self_attn.o_proj", "attention.dense"},
         {"mlp.up_proj", "mlp.dense_h_to_4h"},
         {"mlp.down_proj", "mlp.dense_4h_to_h"}}}}};
  const auto names = families.find(family);
  if (names == families.end()) return module;
  const size_t layer = std::string_view("model.layers.").size(), dot = module.find('.', layer);
  const auto found = names->second.modules.find(module.substr(dot + 1));
  if (found == names->second.modules.end()) return "";
  return names->second.layers + module.substr(layer, dot - layer) + "." + found->second;
}

std::string peft_holder(const std::string& module, const std::string& family) {
  std::string name = peft_module(module, family);
  if (!name.empty()) return name;
  const size_t layer = std::string_view("model.layers.").size(), dot = module.find('.', layer);
  return "transformer.h." + module.substr(layer, dot - layer) + ".attn.c_attn";
}

std::string peft_key(const std::string& module, const std::string& factor) {
  return "base_model.model." + module + factor;
}

std::string peft_config(const std::vector<PeftAdapter>& adapters, const std::string& base_model,
                        const std::string& family, int64_t layers) {
  const PeftAdapter& first = adapters.front();
  Json ranks = Json::object(), alphas = Json::object();
  double dropout = 0;  // it matters in training only
  for (const PeftAdapter& adapter : adapters) {
    if (adapter.r != first.r) ranks[adapter.module] = adapter.r;
    if (adapter.alpha != first.alpha) alphas[adapter.module] = adapter.alpha;
    dropout = std::max(dropout, adapter.dropout);
  }
  const Json config = {{"peft_type", "LORA"},
                       {"task_type", "CAUSAL_LM"},
                       {"base_model_name_or_path", base_model},
                       {"r", first.r},
                       {"lora_alpha", first.alpha},
                       {"lora_dropout", dropout},
                       {"target_modules", target_modules(adapters, layers)},
                       {"rank_pattern", ranks},
                       {"alpha_pattern", alphas},
                       {"bias", "none"},
                       {"fan_in_fan_out", family == "gpt2"},  // Conv1D weights are [in, out]
                       {"modules_to_save", nullptr},
                       {"init_lora_weights", true},
                       {"use_rslora", false},
                       {"use_dora", false},
                       {"inference_mode", true}};
  return config.dump(2) + "\n";
}

PeftConfig PeftConfig::read(const fs::path& folder) {
  const fs::path path = folder / kAdapterConfig;
  if (!fs::exists(path))
    fail_usage("init.adapter = \"{}\": there is no {} in it", folder.string(), kAdapterConfig);
  const std::string text = read_file(path, "the adapter's settings");
  parse_json(text, fmt::format("'{}'", path.string()));  // says what is wrong, and bounds its depth
  const Json config = Json::parse(text);
  if (!config.is_object()) fail("'{}' is not a JSON object", path.string());
  check_supported(config, path);
  const auto setting = [&](const char* common, const char* patterns) {
    Setting read;
    const Json value = config.value(common, Json());
    read.common = value.is_null() ? kDefault : number_of(value, common, path);
    const Json exceptions = config.value(patterns, Json());
    if (!exceptions.is_null() && !exceptions.is_object())
      fail("'{}': {} is not a table of patterns", path.string(), patterns);
    for (const auto& [pattern, exception] : exceptions.items()) {
      read.patterns.emplace_back(
          pattern, number_of(exception, fmt::format("{}['{}']", patterns, pattern), path));
    }
    return read;
  };
  PeftConfig result;
  result.r_ = setting("r", "rank_pattern");
  result.alpha_ = setting("lora_alpha", "alpha_pattern");
  return result;
}

double PeftConfig::value(const Setting& setting, const std::string& module) {
  for (const auto& [pattern, value] : setting.patterns) {
    if (Matcher(Regex("\\A(?:.*\\.)?(?:" + pattern + ")\\z")).contains(module)) return value;
  }
  return setting.common;
}

double PeftConfig::r(const std::string& module) const { return value(r_, module); }
double PeftConfig::alpha(const std::string& module) const { return value(alpha_, module); }

}  // namespace refract
