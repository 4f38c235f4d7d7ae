// The model families of `transformers` that refract reads and writes: a description of the settings
// and a mapping of the names each, which stand in a file of this folder.
#pragma once
#include <nlohmann/json_fwd.hpp>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "formats/checkpoint_layout.h"
#include "formats/families/hf_keys.h"
#include "model/config.h"
#include "model/layer_plan.h"

namespace refract {

struct Family {
  const char* type;   // model_type in config.json
  const char* title;  // in messages
  // Settings from config.json, and the keys that not every family has.
  ModelConfig (*from)(const HfKeys& keys);
  nlohmann::json (*to)(const ModelConfig& config);
  // What stands against the family: everything it has no setting for. Empty: it can hold the model.
  std::vector<std::string> (*against)(const ModelConfig& config);
  // Its tensors, made of ours, and the way back (formats/checkpoint_layout.h).
  std::vector<StoredTensor> (*layout)(const ModelPlan& plan);
  std::vector<StoredName> (*names)(std::string stored);
};

// In the order in which one is chosen for a model that several can hold.
std::span<const Family> families();
const Family* find_family(std::string_view type);  // null where there is none
// Fails (usage) for a name of none, with those that there are.
const Family& family_named(std::string_view type);
std::string family_types();  // "gpt2, llama, ..."

}  // namespace refract
