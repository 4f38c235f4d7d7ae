// config.json to and from ModelConfig: GPT-2, Llama and GPT-NeoX as `transformers` 4 and 5 spell
// them, and model_type "refract" with every setting of ours for models that none of them covers.
#pragma once
#include <filesystem>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <vector>

#include "model/config.h"

namespace refract {

// Which of Hugging Face's model classes computes what this configuration says.
struct HfFamily {
  std::string name;    // "gpt2", "llama", "gpt_neox", or empty: none
  std::string reason;  // where there is none: what stands against each
};
HfFamily hf_family(const ModelConfig& config);

// Reads config.json's tree; `where` names it in errors. What our decoder can't do is an Error that
// names key and value. Settings that do not change the result of a pretrained model and that the
// family has no word for keep our defaults.
ModelConfig config_from_json(const nlohmann::json& tree, const std::string& where);
// The model_type of a tree: "gpt2", "llama", "gpt_neox" or "refract"; fails for others.
std::string model_type_of(const nlohmann::json& tree, const std::string& where);

struct TokenIds {
  std::optional<int64_t> bos = {};
  std::vector<int64_t> eos = {};  // any of them ends a text
};
// The tree of config.json. `format`: "gpt2", "llama", "gpt_neox" (the configuration must be of that
// family) or "refract"; `dtype`: "float32", "bfloat16" or "float16". Both transformers 4 and 5 open
// it. Dropout of a Llama is dropped: Hugging Face's has none.
nlohmann::json config_to_json(const ModelConfig& config, const std::string& format,
                              const std::string& dtype, const TokenIds& ids = {});
nlohmann::json generation_config_json(const TokenIds& ids);

// <folder>/config.json as a tree. The error says what kind of folder was expected.
nlohmann::json read_config_json(const std::filesystem::path& folder);
ModelConfig read_model_config(const std::filesystem::path& folder);

}  // namespace refract
