#include "runs/loaded_model.h"

#include <fmt/ranges.h>

#include <nlohmann/json.hpp>
#include <optional>

#include "core/error.h"
#include "data/dataset.h"
#include "data/tokens.h"
#include "formats/load_weights.h"
#include "formats/model_path.h"
#include "runs/device.h"
#include "runs/model_folder.h"
#include "runs/plan.h"
#include "runs/progress_lines.h"
#include "train/batch_count.h"
#include "train/recipe.h"

namespace refract {
namespace {

// A run's checkpoint says in its settings what it was trained on.
bool has_own_corpus(const std::filesystem::path& folder,
                    const std::vector<std::string>& overrides) {
  return std::filesystem::exists(folder / "config.toml") ||
         sets_key(overrides_tree(overrides), "data.path");
}

}  // namespace

LoadedModel load_model(const std::string& specification,
                       const std::vector<std::string>& overrides) {
  LoadedModel loaded;
  loaded.folder = resolve_model_path(specification);
  loaded.config = folder_config(loaded.folder, overrides, specification);
  loaded.started_from = folder_origin(loaded.folder);
  if (sets_key(overrides_tree(overrides), "data.tokenizer")) {
    loaded.tokenizer = open_tokenizer(loaded.config.data.tokenizer);
  } else {
    loaded.tokenizer = folder_tokenizer(loaded.folder);
  }
  resolve(loaded.config.model, 0, loaded.config.data.context);
  const at::Device device = open_device(loaded.config);
  const PremergeSettings premerge = premerge_settings(loaded.config, loaded.folder, device);
  TransformedModel planned = plan_model(loaded.config, specification, &premerge);
  loaded.model = std::move(planned.decoder);
  loaded.premerged = std::move(planned.premerged);
  loaded.rules = std::move(planned.rules);
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
    stream = open_dataset(data, loaded.tokenizer).validation;
    if (!stream || stream->size() == 0)
      fail_usage("'{}' has no corpus to evaluate on; give one with --data", specification);
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
