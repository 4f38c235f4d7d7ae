#include "runs/loaded_model.h"

#include <fmt/ranges.h>

#include <nlohmann/json.hpp>
#include <optional>
#include <string>

#include "core/error.h"
#include "core/files.h"
#include "data/dataset.h"
#include "data/tokens.h"
#include "formats/checkpoint.h"
#include "formats/load_weights.h"
#include "formats/model_path.h"
#include "runs/device.h"
#include "runs/model_folder.h"
#include "runs/plan.h"
#include "runs/progress/progress_lines.h"
#include "runs/resume/run_corpus.h"
#include "train/batch_count.h"
#include "train/recipe.h"

namespace refract {
namespace {

// The validation split of the run that a model is of, which is none on another corpus.
std::shared_ptr<TokenStream> own_validation(const LoadedModel& loaded, const std::string& name,
                                            const nlohmann::json& overrides) {
  const Dataset data = open_dataset(loaded.config.data, loaded.tokenizer);
  if (!data.validation || data.validation->size() == 0)
    fail_usage("'{}' has no corpus to evaluate on; give one with --data", name);
  bool named = false;  // another corpus, or another cut of it
  for (const char* key : {"path", "weights", "validation", "tokenizer", "text_field", "min_chars",
                          "split", "validation_fraction", "seed"}) {
    named = named || sets_key(overrides, std::string("data.") + key);
  }
  const std::filesystem::path run = loaded.folder.parent_path().parent_path();
  if (!named && loaded.folder.parent_path().filename() == "checkpoints")
    check_corpus(run, corpus_record(loaded.config.data, data, false));
  return data.validation;
}

}  // namespace

bool has_own_corpus(const std::filesystem::path& folder,
                    const std::vector<std::string>& overrides) {
  return std::filesystem::exists(folder / "config.toml") ||
         sets_key(overrides_tree(overrides), "data.path");
}

void copy_settings(const std::filesystem::path& from, const std::filesystem::path& to) {
  const std::filesystem::path settings = from / "config.toml";
  if (std::filesystem::exists(settings))
    write_file_atomically(to / "config.toml", read_file(settings, "the settings"));
}

void save_as_loaded(const LoadedModel& loaded, Decoder& model, const std::filesystem::path& out) {
  save_model(model, out, {.carried = loaded.carried});
  if (loaded.tokenizer) loaded.tokenizer->save(out);
  copy_settings(loaded.folder, out);
}

LoadedModel load_model(const std::string& specification,
                       const std::vector<std::string>& overrides) {
  LoadedModel loaded;
  loaded.folder = resolve_model_path(specification);
  loaded.config = folder_config(loaded.folder, overrides, specification);
  loaded.started_from = folder_origin(loaded.folder);
  loaded.carried = read_carried(loaded.folder);
  if (sets_key(overrides_tree(overrides), "data.tokenizer")) {
    loaded.tokenizer = open_tokenizer(loaded.config.data.tokenizer);
    check_tokenizer_of_model(loaded.folder, *loaded.tokenizer, loaded.config.data.tokenizer);
    if (!folder_tokenizer(loaded.folder)) loaded.carried.drop_tokenizer();
  } else {
    loaded.tokenizer = folder_tokenizer(loaded.folder);
  }
  resolve(loaded.config.model, 0, loaded.config.data.context);
  resolve_document_token(loaded.config.data, loaded.tokenizer.get());
  const at::Device device = open_device(loaded.config);
  const PremergeSettings premerge = premerge_settings(loaded.config, loaded.folder, device);
  check_layer_count(loaded.config.model, loaded.folder);
  TransformedModel planned = plan_model(loaded.config, specification, &premerge);
  loaded.model = std::move(planned.decoder);
  loaded.premerged = std::move(planned.premerged);
  loaded.rules = std::move(planned.rules);
  check_weights(*loaded.model, loaded.folder);
  loaded.model->allocate(device, compute_dtype(loaded.config));
  load_weights(*loaded.model, loaded.folder);
  return loaded;
}

ModelEvaluation evaluate_model(const std::string& specification, std::vector<std::string> overrides,
                               const EvaluationRequest& request) {
  const int64_t batches = batch_count(request.batches, "--batches");
  if (request.context < 0) fail_usage("--context {} must be positive", request.context);
  if (request.context > 0) overrides.push_back(fmt::format("data.context={}", request.context));
  // The default corpus is right for runs that were trained on it, and for nothing else.
  if (request.corpus.empty() && !has_own_corpus(resolve_model_path(specification), overrides)) {
    fail_usage(
        "'{}' is not a run and has no corpus to evaluate on; give one with --data, e.g. --data "
        "my.txt",
        specification);
  }
  LoadedModel loaded = load_model(specification, overrides);
  DataConfig& data = loaded.config.data;
  ModelEvaluation evaluation;
  std::shared_ptr<TokenStream> stream;
  if (request.corpus.empty()) {
    stream = own_validation(loaded, specification, overrides_tree(overrides));
    evaluation.corpus = fmt::format("the validation split of {}", fmt::join(data.path, ", "));
  } else {
    data.path = request.corpus;
    stream = open_corpus(data, loaded.tokenizer);
    evaluation.corpus = fmt::format("{}", fmt::join(data.path, ", "));
  }
  evaluation.context = data.context;
  check_tokens(*stream, loaded.config.model.vocab_size, "the corpus");
  std::optional<ProgressLines> progress;
  evaluation.result = evaluate(*loaded.model, *stream, data.context,
                               batches * loaded.config.train.batch, [&](int64_t done, int64_t all) {
                                 if (!progress) progress.emplace("evaluate", "tokens", all);
                                 progress->update(done);
                               });
  if (progress) progress->finish();
  return evaluation;
}

}  // namespace refract
