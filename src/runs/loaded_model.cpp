#include "runs/loaded_model.h"

#include <nlohmann/json.hpp>
#include <string>

#include "core/error.h"
#include "data/dataset.h"
#include "data/tokens.h"
#include "formats/load_weights.h"
#include "formats/model_path.h"
#include "runs/device.h"
#include "runs/model_folder.h"
#include "runs/plan.h"
#include "runs/resume/run_corpus.h"

namespace refract {
namespace {

// The validation split of the run that a model is of, which is none on another corpus.
std::shared_ptr<TokenStream> own_validation(const LoadedModel& loaded, const std::string& name,
                                            const nlohmann::json& overrides) {
  const Dataset data = open_dataset(loaded.config.data, loaded.tokenizer);
  if (!data.validation || data.validation->size() == 0)
    fail_usage("'{}' has no corpus to evaluate on; give one with --data", name);
  bool named = false;  // another corpus, or another cut of it
  for (const char* key :
       {"path", "validation", "tokenizer", "text_field", "split", "validation_fraction", "seed"}) {
    named = named || sets_key(overrides, std::string("data.") + key);
  }
  const std::filesystem::path run = loaded.folder.parent_path().parent_path();
  if (!named && loaded.folder.parent_path().filename() == "checkpoints")
    check_corpus(run, corpus_record(loaded.config.data, data, false));
  return data.validation;
}

}  // namespace

LoadedModel load_model(const std::string& specification,
                       const std::vector<std::string>& overrides) {
  LoadedModel loaded;
  loaded.folder = resolve_model_path(specification);
  loaded.config = folder_config(loaded.folder, overrides, specification);
  loaded.started_from = folder_origin(loaded.folder);
  loaded.carried = read_carried(loaded.folder);
  if (sets_key(overrides_tree(overrides), "data.tokenizer")) {
    loaded.tokenizer = open_tokenizer(loaded.config.data.tokenizer);
    loaded.carried.drop_tokenizer();
  } else {
    loaded.tokenizer = folder_tokenizer(loaded.folder);
  }
  resolve(loaded.config.model, 0, loaded.config.data.context);
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

Evaluation evaluate_model(const std::string& specification,
                          const std::vector<std::string>& overrides,
                          const std::vector<std::string>& corpus) {
  LoadedModel loaded = load_model(specification, overrides);
  std::shared_ptr<TokenStream> stream;
  if (corpus.empty()) {
    stream = own_validation(loaded, specification, overrides_tree(overrides));
  } else {
    loaded.config.data.path = corpus;
    stream = open_corpus(loaded.config.data, loaded.tokenizer);
  }
  check_tokens(*stream, loaded.config.model.vocab_size, "the corpus");
  return evaluate(*loaded.model, *stream, loaded.config.data.context);
}

}  // namespace refract
