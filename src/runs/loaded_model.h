// A trained model, ready to run.
#pragma once
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "formats/carried.h"
#include "model/decoder.h"
#include "text/tokenizer.h"
#include "train/evaluate.h"
#include "train/run_config.h"
#include "transforms/premerge.h"
#include "transforms/rules.h"

namespace refract {

struct LoadedModel {
  std::filesystem::path folder;
  RunConfig config;  // model settings from the folder, the rest from the overrides
  std::shared_ptr<const Tokenizer> tokenizer;
  Carried carried;  // what the folder holds beside; without ids where another tokenizer is given
  std::unique_ptr<Decoder> model;
  Rules rules;
  std::string started_from = "random";  // init.from of the run it is of
  std::vector<PremergeGroup> premerged;
};

// From a run, a checkpoint, a Hugging Face folder or a Hub id in the cache.
LoadedModel load_model(const std::string& specification, const std::vector<std::string>& overrides);

// The loss of such a model on a whole corpus (paths as data.path takes them), or without one on the
// validation split of its run; an error (usage) where there is none.
Evaluation evaluate_model(const std::string& specification,
                          const std::vector<std::string>& overrides,
                          const std::vector<std::string>& corpus);

}  // namespace refract
