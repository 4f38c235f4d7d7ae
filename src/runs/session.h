// What several commands do first: settings, device, tokenizer, model.
#pragma once
#include <ATen/core/Tensor.h>

#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "analysis/flops.h"
#include "model/decoder.h"
#include "text/tokenizer.h"
#include "train/run_config.h"
#include "transforms/model_builder.h"

namespace refract {

// Sets CPU threads and determinism, and picks the device of train.device. Called before anything
// asks torch for CUDA.
at::Device open_device(const RunConfig& config);
std::string device_name(at::Device device);
// What a measured threshold is kept under: the GPU's name, or the processor's and its threads.
std::string device_key(at::Device device);

// float32, or bfloat16 for train.precision = "bf16".
at::ScalarType compute_dtype(const RunConfig& config);

// The settings of a recipe; with init.from the model's come from there. `source` is that folder, or
// empty.
struct Recipe {
  RunConfig config;
  std::filesystem::path source;
  bool names_tokenizer = false;  // data.tokenizer stands in the recipe itself
};
Recipe open_recipe(const std::string& path, const std::vector<std::string>& overrides);
// The same with the model's settings resolved; opens the tokenizer only for a vocabulary that
// nothing else gives.
Recipe open_resolved_recipe(const std::string& path, const std::vector<std::string>& overrides);

// Opens a folder's tokenizer; null if it has none.
std::shared_ptr<const Tokenizer> folder_tokenizer(const std::filesystem::path& folder);

// The settings that a folder's model was trained with, transform rules included, under the
// overrides; of the model those of its config.json. `where` names the folder in errors.
RunConfig folder_config(const std::filesystem::path& folder,
                        const std::vector<std::string>& overrides, const std::string& where);

// A trained model ready to run: from a run, a checkpoint, a Hugging Face folder or a Hub id in the
// cache.
struct LoadedModel {
  std::filesystem::path folder;
  RunConfig config;  // model settings from the folder, the rest from the overrides
  std::shared_ptr<const Tokenizer> tokenizer;
  std::unique_ptr<Decoder> model;
  Rules rules;
  std::string started_from = "random";  // init.from of the run it is of
  std::vector<PremergeGroup> premerged;
};
// Of a model for inference on `device`: what decode.premerge says, with the thresholds measured for
// the run that `folder` belongs to (none for an empty one).
PremergeSettings premerge_settings(const RunConfig& config, const std::filesystem::path& folder,
                                   at::Device device);
// Where a run keeps its measured thresholds: premerge.toml beside its checkpoints, or in the folder
// itself where that is no checkpoint of a run.
std::filesystem::path premerge_file(const std::filesystem::path& folder);

LoadedModel load_model(const std::string& specification, const std::vector<std::string>& overrides);

// The model of a run with its transform rules, not allocated, and what they came to. The rules in
// `config` become the effective ones (a legacy rule file's are written out). premerge: for
// inference.
TransformedModel plan_model(RunConfig& config, const std::string& where,
                            const PremergeSettings* premerge = nullptr);

// The histogram of the rules: rule, kind, modules, parameters before and after. Empty without
// rules.
std::string plan_table(const TransformedModel& model);

// What a run of `fresh_steps` steps on fresh data costs, guides and repeats included.
struct RunCost {
  TrainingRun run;
  Flops flops;
};
RunCost cost_of_run(const RunConfig& config, const Decoder& model, int64_t fresh_steps);
// "12 steps of 4 x 8 tokens: 384 tokens, 1.2e6 FLOPs (attention 20%, feed-forward 50%, head 30%)"
std::string describe(const RunCost& cost, const RunConfig& config);

}  // namespace refract
