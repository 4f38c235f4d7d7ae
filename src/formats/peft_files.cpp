#include "formats/peft_files.h"

#include <algorithm>
#include <fstream>
#include <map>
#include <nlohmann/json.hpp>
#include <set>
#include <string_view>

#include "core/error.h"
#include "text/regex.h"

namespace refract {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

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

void check_supported(const json& config, const fs::path& path) {
  const auto refuse = [&](const char* key, const json& only) {
    if (config.contains(key) && !config[key].is_null() && config[key] != only) {
      fail("'{}': {} = {} is not supported; refract's adapters need {}", path.string(), key,
           config[key].dump(), only.dump());
    }
  };
  refuse("peft_type", "LORA");
  refuse("bias", "none");
  refuse("use_rslora", false);
  refuse("use_dora", false);
  refuse("lora_bias", false);
  refuse("modules_to_save", json::array());
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

std::string peft_key(const std::string& module, const std::string& factor) {
  return "base_model.model." + module + factor;
}

std::string peft_config(const std::vector<PeftAdapter>& adapters, const std::string& base_model,
                        const std::string& family, int64_t layers) {
  const PeftAdapter& first = adapters.front();
  json ranks = json::object(), alphas = json::object();
  double dropout = 0;  // it matters in training only
  for (const PeftAdapter& adapter : adapters) {
    if (adapter.r != first.r) ranks[adapter.module] = adapter.r;
    if (adapter.alpha != first.alpha) alphas[adapter.module] = adapter.alpha;
    dropout = std::max(dropout, adapter.dropout);
  }
  const json config = {{"peft_type", "LORA"},
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
  std::ifstream stream(path);
  if (!stream)
    fail_usage("init.adapter = \"{}\": there is no {} in it", folder.string(), kAdapterConfig);
  const json config = json::parse(stream, nullptr, false);
  if (!config.is_object()) fail("'{}' is not a JSON object", path.string());
  check_supported(config, path);
  const auto setting = [&](const char* common, const char* patterns) {
    Setting read{config.value(common, kDefault), {}};
    const json exceptions = config.value(patterns, json::object());
    for (const auto& [pattern, value] : exceptions.items())
      read.patterns.emplace_back(pattern, value.get<double>());
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
