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

// Whether a model says what it was trained on: a checkpoint does in the settings beside it. The
// default corpus is right for runs that were trained on it, and for nothing else.
bool has_own_corpus(const std::filesystem::path& folder, const std::vector<std::string>& overrides);

// Copies the settings of a model's run, config.toml, where its folder has them.
void copy_settings(const std::filesystem::path& from, const std::filesystem::path& to);

// Writes `model` into the folder `out`, with what lies beside the model that was loaded: tokenizer,
// side files, settings.
void save_as_loaded(const LoadedModel& loaded, Decoder& model, const std::filesystem::path& out);

// What a model is evaluated on. Errors name the options of `refract eval`.
struct EvaluationRequest {
  std::vector<std::string> corpus;  // paths as data.path takes them; empty: the run's own
  std::string batches = "all";      // or that many batches of train.batch windows from its start
  int64_t context = 0;              // tokens of a window; 0: the model's own
};

struct ModelEvaluation {
  Evaluation result;
  std::string corpus;  // "the validation split of stories:20MB"
  int64_t context = 0;
};

// The loss of such a model on a whole corpus, or without one on the validation split of its run; an
// error (usage) where it is of no run, or where that has no such split. Shows its progress.
ModelEvaluation evaluate_model(const std::string& specification, std::vector<std::string> overrides,
                               const EvaluationRequest& request);

}  // namespace refract
