// From what a user calls a model to the folder that holds it.
#pragma once
#include <filesystem>
#include <string>

namespace refract {

// Where the model that `spec` names lies: an existing model folder; of a run folder its newest
// complete checkpoint (<run>/checkpoints/step-*); a GGUF file, by its name or by the folder that
// holds it and no other weights; a Hub id "org/name" or "org/name@revision" in the Hugging Face
// cache.
std::filesystem::path resolve_model_path(const std::string& spec);

}  // namespace refract
