// GPT-NeoX (Pythia) as `transformers` writes it: its settings, the names of its tensors, and the
// layout of its joint query, key and value matrix.
#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "formats/checkpoint_layout.h"
#include "formats/families/hf_keys.h"
#include "model/config.h"
#include "model/layer_plan.h"

namespace refract {

ModelConfig from_gpt_neox(const HfKeys& keys);
// The keys that other families don't have, and its own spelling of those that they do.
nlohmann::json to_gpt_neox(const ModelConfig& config);
// What stands against GPT-NeoX: everything it has no setting for.
std::vector<std::string> against_gpt_neox(const ModelConfig& config);

std::vector<StoredTensor> gpt_neox_layout(const ModelPlan& plan);
std::vector<StoredName> gpt_neox_names(std::string stored);

// q, k and v, each [H D, ...], as one tensor [H 3 D, ...] with the three beside each other in every
// head. GPT-NeoX turns the pairs (i, i + R / 2) of a head's first R channels, our kernels the pairs
// (i, i + D / 2): where R < D the channels of q and k change places on the way.
at::Tensor join_heads(const std::vector<at::Tensor>& qkv, int64_t heads, int64_t rotary_width);
// The reverse, of one part: 0 for q, 1 for k, 2 for v.
at::Tensor part_of_heads(const at::Tensor& joint, int64_t part, int64_t heads,
                         int64_t rotary_width);

}  // namespace refract
