// What lies in a model's folder beside its weights: tokenizer, settings, measured thresholds.
#pragma once
#include <c10/core/Device.h>

#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "text/tokenizer.h"
#include "train/run_config.h"
#include "transforms/premerge.h"

namespace refract {

// Opens a folder's tokenizer; null if it has none.
std::shared_ptr<const Tokenizer> folder_tokenizer(const std::filesystem::path& folder);

// Fails (usage) where `named`, which data.tokenizer = `name` opened, gives an id another meaning
// than the tokenizer in the model's folder: its weights stand for the ids of that one. Either may
// have more ids; a folder without a tokenizer lets any pass.
void check_tokenizer_of_model(const std::filesystem::path& folder, const Tokenizer& named,
                              const std::string& name);

// The settings that a folder's model was trained with, transform rules included, under the
// overrides; of the model those of its config.json. `where` names the folder in errors.
RunConfig folder_config(const std::filesystem::path& folder,
                        const std::vector<std::string>& overrides, const std::string& where);

// What the folder's run started from, as its init.from says; "random" where it says nothing.
std::string folder_origin(const std::filesystem::path& folder);

// Where a run keeps its measured thresholds: premerge.toml beside its checkpoints, or in the folder
// itself where that is not a checkpoint of a run.
std::filesystem::path premerge_file(const std::filesystem::path& folder);
// Of a model for inference on `device`: what decode.premerge says, with the thresholds measured for
// the run that `folder` belongs to (none for an empty one).
PremergeSettings premerge_settings(const RunConfig& config, const std::filesystem::path& folder,
                                   at::Device device);

}  // namespace refract
