// GPT-2 as `transformers` writes it: its settings and the names of its tensors, of which q, k and v
// are one and most are stored [in, out].
#pragma once
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "formats/checkpoint_layout.h"
#include "formats/families/hf_keys.h"
#include "model/config.h"
#include "model/layer_plan.h"

namespace refract {

ModelConfig from_gpt2(const HfKeys& keys);
// The keys that other families don't have, and its own spelling of those that they do.
nlohmann::json to_gpt2(const ModelConfig& config);
// What stands against GPT-2: everything it has no setting for.
std::vector<std::string> against_gpt2(const ModelConfig& config);

std::vector<StoredTensor> gpt2_layout(const ModelPlan& plan);
std::vector<StoredName> gpt2_names(std::string stored);

}  // namespace refract
