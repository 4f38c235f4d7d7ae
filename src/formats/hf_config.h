// config.json to and from ModelConfig: the families (formats/families/families.h) as `transformers`
// 4 and 5 spell them, and model_type "refract" with every setting of ours for models that none of
// them covers.
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
  std::string name;    // its model_type, "gpt2", or empty: none
  std::string reason;  // where there is none: what stands against those that come nearest
};
HfFamily hf_family(const ModelConfig& config);

// Reads config.json's tree; `where` names it in errors. What our decoder can't do is an Error that
// names key and value. Settings that do not change the result of a pretrained model and that the
// family has no word for keep our defaults.
ModelConfig config_from_json(const nlohmann::json& tree, const std::string& where);
// The model_type of a tree: a family's or "refract"; fails for others with those that there are.
std::string model_type_of(const nlohmann::json& tree, const std::string& where);

struct TokenIds {
  std::optional<int64_t> bos = {};
  std::vector<int64_t> eos = {};  // any of them ends a text
};
// The tree of config.json. `format`: a family's model_type (it must be able to hold the
// configuration) or "refract"; `dtype`: "float32", "bfloat16" or "float16". Both transformers 4 and
// 5 open it. Dropout of a Llama and its like is dropped: Hugging Face's have none.
nlohmann::json config_to_json(const ModelConfig& config, const std::string& format,
                              const std::string& dtype, const TokenIds& ids = {});
nlohmann::json generation_config_json(const TokenIds& ids);

// <folder>/config.json as a tree. The error says what kind of folder was expected.
nlohmann::json read_config_json(const std::filesystem::path& folder);
ModelConfig read_model_config(const std::filesystem::path& folder);

}  // namespace refract
