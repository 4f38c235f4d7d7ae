#include "transforms/peft.h"

#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <set>
#include <string_view>
#include <vector>

#include "core/config.h"
#include "core/error.h"
#include "core/files.h"
#include "formats/hf_config.h"
#include "formats/safetensors.h"
#include "formats/safetensors_write.h"
#include "transforms/model_builder.h"

namespace refract {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

// An adapted layer under both names.
struct Adapter {
  std::string ours;
  PeftAdapter theirs;
  // Where q, k and v are one matrix there (GPT-2's c_attn): this one's third of lora_B's rows.
  std::optional<int64_t> third = {};
};

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

// `fused`: q, k and v of a GPT-2 may be adapted, for reading a c_attn's adapter.
std::vector<Adapter> adapters_of(const Decoder& decoder, const Rules& rules, bool fused) {
  const std::string family = family_of(decoder);
  std::map<int, json> settings_of_rule;
  std::vector<Adapter> all;
  for (const std::string& module : module_names(decoder.config())) {
    const int rule = rules.find(module);
    if (rule < 0 || rules.all()[static_cast<size_t>(rule)].kind != "lora") continue;
    const bool part = peft_module(module, family).empty();
    if (part && !fused) {
      fail(
          "'{}' has an adapter that peft can't hold: in {}'s layout q, k and v are one matrix, "
          "{}, which takes one adapter for all three; adapt o_proj and the mlp, or export the "
          "merged model (without --adapter)",
          module, family == "gpt2" ? "GPT-2" : "GPT-NeoX",
          family == "gpt2" ? "c_attn" : "query_key_value");
    }
    json& settings = settings_of_rule[rule];
    if (settings.is_null()) settings = lora_settings(rules.all()[static_cast<size_t>(rule)]);
    all.push_back(
        {module,
         {peft_holder(module, family), settings["r"], settings["alpha"], settings["dropout"]}});
    if (part) {
      static const std::map<char, int64_t> thirds = {{'q', 0}, {'k', 1}, {'v', 2}};
      all.back().third = thirds.at(module[module.rfind('.') + 1]);
    }
  }
  if (all.empty()) fail("the model has no adapters: none of its rules is of the kind \"lora\"");
  return all;
}

void check_settings(const PeftAdapter& adapter, const PeftConfig& config, const fs::path& folder) {
  const double r = config.r(adapter.module), alpha = config.alpha(adapter.module);
  if (r == static_cast<double>(adapter.r) && alpha == adapter.alpha) return;
  fail_usage(
      "the adapter in '{}' has r = {} and lora_alpha = {} for '{}', the run's rule r = {} and "
      "alpha = {}; give '{}' a rule with the adapter's values",
      folder.string(), r, alpha, adapter.module, adapter.r, adapter.alpha, adapter.module);
}

// Reads one factor and returns its key.
std::string load_factor(Decoder& decoder, const Adapter& adapter, const char* factor,
                        const SafetensorsFile& file) {
  const std::string key = peft_key(adapter.theirs.module, factor);
  const Parameter* parameter = decoder.arena().find(adapter.ours + factor);
  const TensorInfo* info = file.find(key);
  if (!info) {
    fail_usage("'{}' holds no '{}', though the run's rules adapt '{}'", file.path().string(), key,
               adapter.ours);
  }
  // All three parts have the whole's input, so they share A; B's rows are theirs.
  const bool cut = adapter.third && factor == std::string_view(kAdapterFactors[1]);
  std::vector<int64_t> shape = parameter->shape;
  if (cut) shape[0] *= 3;
  if (info->shape != shape) {
    fail_usage("'{}': '{}' is {}, the model has [{}]", file.path().string(), key, info->describe(),
               fmt::join(shape, ", "));
  }
  at::Tensor value = file.tensor(key);
  if (cut) value = value.narrow(0, *adapter.third * parameter->shape[0], parameter->shape[0]);
  decoder.arena().value(parameter).copy_(value);
  return key;
}

// Fails for tensors that no adapter of the model took; says what can be done about the first.
void refuse_unread(const std::set<std::string>& unread, const Decoder& decoder,
                   const fs::path& path) {
  if (unread.empty()) return;
  std::set<std::string> adaptable;
  for (const std::string& module : module_names(decoder.config())) {
    for (const char* factor : kAdapterFactors)
      adaptable.insert(peft_key(peft_holder(module, family_of(decoder)), factor));
  }
  const std::string& first = *unread.begin();
  if (!adaptable.contains(first)) {
    fail_usage(
        "'{}' holds '{}', which is no adapter of a linear layer that refract has; merge it into "
        "its model with peft (merge_and_unload, then save_pretrained) and start from that",
        path.string(), first);
  }
  const bool fused = first.find("attn.c_attn.") != std::string::npos;
  fail_usage(
      "'{}' adapts {} more layers than the run's rules, among them '{}'; add a rule with kind = "
      "\"lora\" that matches {}",
      path.string(), (unread.size() + 1) / 2, first,
      fused ? "q_proj, k_proj and v_proj, which are c_attn's parts" : "them");
}

}  // namespace

void save_adapter(const Decoder& decoder, const Rules& rules, const fs::path& folder,
                  const AdapterOptions& options) {
  const std::vector<Adapter> adapters = adapters_of(decoder, rules, /*fused=*/false);
  std::vector<PeftAdapter> theirs;
  for (const Adapter& adapter : adapters) theirs.push_back(adapter.theirs);
  const ParameterArena& arena = decoder.arena();
  std::vector<TensorSource> tensors;
  for (const Parameter& parameter : arena.parameters()) {
    for (const Adapter& adapter : adapters) {
      for (const char* factor : kAdapterFactors) {
        if (parameter.name != adapter.ours + factor) continue;
        tensors.push_back({peft_key(adapter.theirs.module, factor), options.dtype, parameter.shape,
                           [&arena, &parameter] { return arena.value(&parameter); }});
      }
    }
  }
  fs::create_directories(folder);
  write_safetensors(folder / kAdapterFile, tensors);
  write_file_atomically(folder / kAdapterConfig,
                        peft_config(theirs, options.base_model, family_of(decoder),
                                    decoder.config().num_hidden_layers));
}

void load_adapter(Decoder& decoder, const Rules& rules, const fs::path& folder) {
  const PeftConfig config = PeftConfig::read(folder);
  const std::vector<Adapter> adapters = adapters_of(decoder, rules, /*fused=*/true);
  const SafetensorsFile file(folder / kAdapterFile);
  std::set<std::string> unread;
  for (const TensorInfo& info : file.tensors()) unread.insert(info.name);
  std::map<std::string, int> thirds;  // of a fused key, those that were read
  for (const Adapter& adapter : adapters) {
    check_settings(adapter.theirs, config, folder);
    for (const char* factor : kAdapterFactors) {
      const std::string key = load_factor(decoder, adapter, factor, file);
      if (!adapter.third || ++thirds[key] == 3) unread.erase(key);
    }
  }
  refuse_unread(unread, decoder, file.path());
  decoder.arena().refresh_compute();
}

}  // namespace refract
