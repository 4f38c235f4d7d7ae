// Llama and the families of its shape, Mistral, Qwen2 (2.5 too) and Qwen3, as `transformers` writes
// them: their settings, and the names of their tensors, which are ours.
#pragma once
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "formats/checkpoint_layout.h"
#include "formats/families/hf_keys.h"
#include "model/config.h"
#include "model/layer_plan.h"

namespace refract {

ModelConfig from_llama(const HfKeys& keys);
ModelConfig from_mistral(const HfKeys& keys);
ModelConfig from_qwen2(const HfKeys& keys);
ModelConfig from_qwen3(const HfKeys& keys);

// The keys that not every family has.
nlohmann::json to_llama(const ModelConfig& config);
nlohmann::json to_mistral(const ModelConfig& config);
nlohmann::json to_qwen2(const ModelConfig& config);
nlohmann::json to_qwen3(const ModelConfig& config);

// What stands against each: everything it has no setting for.
std::vector<std::string> against_llama(const ModelConfig& config);
std::vector<std::string> against_mistral(const ModelConfig& config);
std::vector<std::string> against_qwen2(const ModelConfig& config);
std::vector<std::string> against_qwen3(const ModelConfig& config);

// Of them all.
std::vector<StoredTensor> llama_layout(const ModelPlan& plan);
std::vector<StoredName> llama_names(std::string stored);

}  // namespace refract
