#include "transforms/peft.h"

#include <algorithm>
#include <fstream>
#include <map>
#include <nlohmann/json.hpp>
#include <set>

#include "core/config.h"
#include "core/error.h"
#include "core/files.h"
#include "formats/hf_config.h"
#include "formats/safetensors.h"
#include "formats/safetensors_write.h"
#include "text/regex.h"
#include "transforms/model_builder.h"

namespace refract {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

constexpr const char* kPrefix = "base_model.model.";

struct Adapter {
  std::string module;  // ours
  std::string theirs;  // "transformer.h.0.mlp.c_fc"
  std::string suffix;  // of `theirs` behind the layer's number: "mlp.c_fc"
  int64_t r;
  double alpha, dropout;
};

// The name of our module in `transformers`; empty where it has none of its own.
std::string hf_module(const std::string& module, const std::string& family) {
  if (family != "gpt2") return module;
  const size_t layer = std::string_view("model.layers.").size(), dot = module.find('.', layer);
  static const std::map<std::string, std::string> names = {{"self_attn.o_proj", "attn.c_proj"},
                                                           {"mlp.up_proj", "mlp.c_fc"},
                                                           {"mlp.down_proj", "mlp.c_proj"}};
  const auto found = names.find(module.substr(dot + 1));
  if (found == names.end()) return "";
  return "transformer.h." + module.substr(layer, dot - layer) + "." + found->second;
}

std::string behind_layer(const std::string& name) {
  const size_t digit = name.find_first_of("0123456789");
  return name.substr(name.find('.', digit) + 1);
}

std::string family_of(const Decoder& decoder) {
  const HfFamily family = hf_family(decoder.config());
  if (family.name.empty())
    fail("peft can't hold this model's adapters: transformers has no model that computes it. {}",
         family.reason);
  return family.name;
}

json lora_settings(const Rule& rule) {
  json table = json::parse(rule.table_json);
  table.erase("match");
  const auto kind = make_kind(table.dump(), rule.match);
  Fields fields;
  kind->describe(fields);
  return fields.to_json();
}

std::vector<Adapter> adapters_of(const Decoder& decoder, const Rules& rules) {
  const std::string family = family_of(decoder);
  std::map<int, json> settings_of_rule;
  std::vector<Adapter> all;
  for (const std::string& module : module_names(decoder.config())) {
    const int rule = rules.find(module);
    if (rule < 0 || rules.all()[static_cast<size_t>(rule)].kind != "lora") continue;
    const std::string theirs = hf_module(module, family);
    if (theirs.empty()) {
      fail(
          "'{}' has an adapter that peft can't hold: in GPT-2's layout q, k and v are one matrix, "
          "c_attn, which takes one adapter for all three; adapt o_proj and the mlp, or export the "
          "merged model (without --adapter)",
          module);
    }
    json& settings = settings_of_rule[rule];
    if (settings.is_null()) settings = lora_settings(rules.all()[static_cast<size_t>(rule)]);
    all.push_back({module, theirs, behind_layer(theirs), settings["r"], settings["alpha"],
                   settings["dropout"]});
  }
  if (all.empty()) fail("the model has no adapters: none of its rules is of the kind \"lora\"");
  return all;
}

// Names as short as they can be: "self_attn.q_proj" where every layer's has an adapter.
std::vector<std::string> target_modules(const std::vector<Adapter>& adapters, int64_t layers) {
  std::map<std::string, int64_t> count;
  for (const Adapter& adapter : adapters) ++count[adapter.suffix];
  std::set<std::string> targets;
  for (const Adapter& adapter : adapters)
    targets.insert(count[adapter.suffix] == layers ? adapter.suffix : adapter.theirs);
  return {targets.begin(), targets.end()};
}

json adapter_config(const std::vector<Adapter>& adapters, const Decoder& decoder,
                    const std::string& base_model) {
  const Adapter& first = adapters.front();
  json ranks = json::object(), alphas = json::object();
  double dropout = 0;  // peft knows one for all; it matters in training only
  for (const Adapter& adapter : adapters) {
    if (adapter.r != first.r) ranks[adapter.theirs] = adapter.r;
    if (adapter.alpha != first.alpha) alphas[adapter.theirs] = adapter.alpha;
    dropout = std::max(dropout, adapter.dropout);
  }
  return {{"peft_type", "LORA"},
          {"task_type", "CAUSAL_LM"},
          {"base_model_name_or_path", base_model},
          {"r", first.r},
          {"lora_alpha", first.alpha},
          {"lora_dropout", dropout},
          {"target_modules", target_modules(adapters, decoder.config().num_hidden_layers)},
          {"rank_pattern", ranks},
          {"alpha_pattern", alphas},
          {"bias", "none"},
          {"fan_in_fan_out", family_of(decoder) == "gpt2"},  // Conv1D weights are [in, out]
          {"modules_to_save", nullptr},
          {"init_lora_weights", true},
          {"use_rslora", false},
          {"use_dora", false},
          {"inference_mode", true}};
}

const char* const kFactors[] = {".lora_A.weight", ".lora_B.weight"};

// ---- Reading

json read_config(const fs::path& folder) {
  const fs::path path = folder / kAdapterConfig;
  std::ifstream stream(path);
  if (!stream)
    fail_usage("init.adapter = \"{}\": there is no {} in it", folder.string(), kAdapterConfig);
  json config = json::parse(stream, nullptr, false);
  if (!config.is_object()) fail("'{}' is no JSON object", path.string());
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
  return config;
}

// A value of the config for one module: that of the pattern that matches it, else the common one.
double setting(const json& config, const char* patterns, const char* common, double otherwise,
               const std::string& module) {
  const json overrides = config.value(patterns, json::object());
  for (const auto& [pattern, value] : overrides.items()) {
    if (Matcher(Regex("\\A(?:.*\\.)?(?:" + pattern + ")\\z")).contains(module))
      return value.get<double>();
  }
  return config.value(common, otherwise);
}

void check_settings(const Adapter& adapter, const json& config, const fs::path& folder) {
  const double r = setting(config, "rank_pattern", "r", 8, adapter.theirs),
               alpha = setting(config, "alpha_pattern", "lora_alpha", 8, adapter.theirs);
  if (r == static_cast<double>(adapter.r) && alpha == adapter.alpha) return;
  fail_usage(
      "the adapter in '{}' has r = {} and lora_alpha = {} for '{}', the run's rule r = {} and "
      "alpha "
      "= {}; give the rule the adapter's values",
      folder.string(), r, alpha, adapter.theirs, adapter.r, adapter.alpha);
}

}  // namespace

void save_adapter(const Decoder& decoder, const Rules& rules, const fs::path& folder,
                  const AdapterOptions& options) {
  const std::vector<Adapter> adapters = adapters_of(decoder, rules);
  const ParameterArena& arena = decoder.arena();
  std::vector<TensorSource> tensors;
  for (const Parameter& parameter : arena.parameters()) {
    for (const Adapter& adapter : adapters) {
      for (const char* factor : kFactors) {
        if (parameter.name != adapter.module + factor) continue;
        tensors.push_back({kPrefix + adapter.theirs + factor, options.dtype, parameter.shape,
                           [&arena, &parameter] { return arena.value(&parameter); }});
      }
    }
  }
  fs::create_directories(folder);
  write_safetensors(folder / kAdapterFile, tensors);
  write_file_atomically(folder / kAdapterConfig,
                        adapter_config(adapters, decoder, options.base_model).dump(2) + "\n");
}

void load_adapter(Decoder& decoder, const Rules& rules, const fs::path& folder) {
  const json config = read_config(folder);
  const std::vector<Adapter> adapters = adapters_of(decoder, rules);
  const SafetensorsFile file(folder / kAdapterFile);
  std::set<std::string> unread;
  for (const TensorInfo& info : file.tensors()) unread.insert(info.name);
  for (const Adapter& adapter : adapters) {
    check_settings(adapter, config, folder);
    for (const char* factor : kFactors) {
      const std::string key = kPrefix + adapter.theirs + factor;
      const Parameter* parameter = decoder.arena().find(adapter.module + factor);
      const TensorInfo* info = file.find(key);
      if (!info) {
        fail_usage("'{}' holds no '{}', though the run's rules adapt '{}'", file.path().string(),
                   key, adapter.module);
      }
      if (info->shape != parameter->shape) {
        fail_usage("'{}': '{}' is {}, the model has [{}]", file.path().string(), key,
                   info->describe(), fmt::join(parameter->shape, ", "));
      }
      decoder.arena().value(parameter).copy_(file.tensor(key));
      unread.erase(key);
    }
  }
  if (!unread.empty()) {
    fail_usage(
        "'{}' adapts {} more layers than the run's rules, among them '{}'; add a rule with kind = "
        "\"lora\" that matches them",
        file.path().string(), (unread.size() + 1) / 2, *unread.begin());
  }
  decoder.arena().refresh_compute();
}

}  // namespace refract
