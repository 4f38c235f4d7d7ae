// LoRA adapters in the format of Hugging Face's `peft`: adapter_config.json and
// adapter_model.safetensors with the keys base_model.model.<module>.lora_A.weight [r, in] and
// .lora_B.weight [out, r], <module> named as `transformers` names it. Which layers of a model have
// adapters is said by its rules: transforms/peft.h.
#pragma once
#include <cstdint>
#include <filesystem>
#include <string>
#include <utility>
#include <vector>

namespace refract {

inline constexpr const char* kAdapterConfig = "adapter_config.json";
inline constexpr const char* kAdapterFile = "adapter_model.safetensors";

// Behind the name of an adapted module, ours or theirs: its two factors.
inline constexpr const char* kAdapterFactors[] = {".lora_A.weight", ".lora_B.weight"};

// The adapter of one linear layer.
struct PeftAdapter {
  std::string module;  // as transformers names it: "transformer.h.0.mlp.c_fc"
  int64_t r = 0;
  double alpha = 0, dropout = 0;
};

// The name in `transformers` of our module "model.layers.N...." in a model of `family` ("gpt2",
// "llama", "gpt_neox", see HfFamily); empty for q, k and v of GPT-2 and GPT-NeoX, which are one
// module there.
std::string peft_module(const std::string& module, const std::string& family);

// The same, but for a part of a GPT-2's c_attn the whole of it.
std::string peft_holder(const std::string& module, const std::string& family);

// The key of a factor in adapter_model.safetensors.
std::string peft_key(const std::string& module, const std::string& factor);

// The text of adapter_config.json. There is at least one adapter; `layers` is the number of the
// model's decoder layers, `base_model` a folder or Hub id. peft knows one dropout: the greatest.
std::string peft_config(const std::vector<PeftAdapter>& adapters, const std::string& base_model,
                        const std::string& family, int64_t layers);

// adapter_config.json of a folder.
class PeftConfig {
 public:
  // Fails (usage) where there is none, and names what our adapters can't be: another method than
  // LoRA, an initialization that changes the model's weights, and every key that is not known and
  // is not off.
  static PeftConfig read(const std::filesystem::path& folder);

  // Of one module: the value of the first pattern, in the file's order, that matches its name, else
  // the common one.
  double r(const std::string& module) const;
  double alpha(const std::string& module) const;

 private:
  // A setting with its exceptions: values of modules that match an expression.
  struct Setting {
    double common = 0;
    std::vector<std::pair<std::string, double>> patterns;
  };
  static double value(const Setting& setting, const std::string& module);

  Setting r_, alpha_;
};

}  // namespace refract
