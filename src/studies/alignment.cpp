#include "studies/alignment.h"

#include <algorithm>
#include <filesystem>
#include <optional>
#include <utility>

#include "core/choices.h"
#include "core/error.h"
#include "core/log.h"
#include "core/progress.h"
#include "core/system/new_folder.h"
#include "data/dataset.h"
#include "model/dense.h"
#include "report/table.h"
#include "runs/device.h"
#include "runs/same_model.h"

namespace refract {
namespace {

namespace fs = std::filesystem;

constexpr int64_t kTokensCompared = 32768;

std::shared_ptr<TokenStream> tokens_of(const AlignStudy& study, LoadedModel& a) {
  if (study.words.by != "activations" && study.words.learn == 0) return nullptr;
  std::shared_ptr<TokenStream> stream;
  if (study.data.empty()) {
    stream = open_dataset(a.config.data, a.tokenizer).train;
  } else {
    a.config.data.path = study.data;
    stream = open_corpus(a.config.data, a.tokenizer);
  }
  check_tokens(*stream, a.config.model.vocab_size, "the corpus");
  return stream;
}

// A model of such settings on the same device and in the same types as another.
std::unique_ptr<Decoder> model_like(const LoadedModel& model, const ModelConfig& config) {
  auto decoder = std::make_unique<Decoder>(config, DenseFactory());
  decoder->allocate(model.model->device(), compute_dtype(model.config));
  decoder->isolate_documents(model.model->document_token());
  return decoder;
}

// Gives a model other weights, of settings that may be others; returns what it had where they are.
std::unique_ptr<Decoder> take_weights(LoadedModel& model, const ModelConfig& config,
                                      const NamedWeights& weights) {
  std::unique_ptr<Decoder> before;
  if (config.tie_word_embeddings != model.model->config().tie_word_embeddings) {
    before = std::exchange(model.model, model_like(model, config));
    model.config.model = config;
  }
  write_weights(weights, *model.model);
  return before;
}

void save_aligned(const LoadedModel& model, NewFolder& folder) {
  save_as_loaded(model, *model.model, folder.path());
  folder.commit();
}

// Shown while maps are learned: the mean loss at the random points since the last line.
class LearningProgress {
 public:
  explicit LearningProgress(int64_t steps) : progress_("learn", steps) {}
  void step(int64_t step, double loss) {
    sum_ += loss;
    if (++count_ == kSteps) {
      log_info("learned matching, step {}: loss {} at random points", step,
               format_number(sum_ / static_cast<double>(count_)));
      sum_ = 0;
      count_ = 0;
    }
    progress_.update(step);
  }
  void finish() { progress_.finish(); }

 private:
  static constexpr int64_t kSteps = 100;
  Progress progress_;
  double sum_ = 0;
  int64_t count_ = 0;
};

void log_report(const AlignWords& words, const AlignReport& report) {
  log_info("aligned by {}: distance {} -> {}, {} sweep{}, residual stream: {}, heads: {}", words.by,
           format_number(report.distance_before), format_number(report.distance_after),
           report.sweeps, report.sweeps == 1 ? "" : "s", report.residual, report.heads);
  if (words.learn > 0) {
    log_info("learned matching, {} steps: loss half way {} -> {}", words.learn,
             format_number(report.learned.before), format_number(report.learned.after));
  }
}

}  // namespace

void check_words(const AlignWords& words, const std::string& by_option) {
  constexpr int64_t kMostSteps = 10'000'000;
  require_choice(by_option, words.by, {"weights", "activations"});
  require_choice("--residual", words.residual, {"auto", "none", "permutation", "orthogonal"});
  require_choice("--heads", words.heads, {"auto", "whole", "orthogonal"});
  if (words.learn < 0 || words.learn > kMostSteps)
    fail_usage("--learn {} is no number of steps from 0 to {}", words.learn, kMostSteps);
  if (words.both && words.learn == 0)
    fail_usage("--both moves both ends in learned matching; give it steps with --learn");
  if (!(words.rate > 0 && words.rate <= 1))
    fail_usage("--learn-rate {} must be above 0 and at most 1", words.rate);
}

AlignOptions align_options(const AlignWords& words, std::shared_ptr<TokenStream> tokens,
                           int64_t context) {
  AlignOptions options;
  options.by = words.by;
  options.residual = words.residual;
  options.heads = words.heads;
  options.stream = std::move(tokens);
  options.context = context;
  options.windows = std::max<int64_t>(1, kTokensCompared / context);
  options.learn.steps = words.learn;
  options.learn.both = words.both;
  options.learn.rate = words.rate;
  return options;
}

AlignedModels align_models(LoadedModel& a, LoadedModel& b, const AlignWords& words,
                           std::shared_ptr<TokenStream> tokens) {
  AlignOptions options = align_options(words, std::move(tokens), a.config.data.context);
  options.learn.seed = static_cast<uint64_t>(a.config.run.seed);
  std::optional<LearningProgress> progress;
  if (words.learn > 0) progress.emplace(words.learn);
  options.learn.done = [&](int64_t step, double loss) { progress->step(step, loss); };
  options.point = [&](const ModelConfig& config) { return model_like(a, config); };
  const Matched matched = match_models(*a.model, *b.model, options);
  if (progress) progress->finish();
  log_report(words, matched.report);
  AlignedModels aligned{matched.report, matched.moved_a, nullptr};
  take_weights(b, matched.config, matched.b);
  if (matched.moved_a) aligned.original_a = take_weights(a, matched.config, matched.a);
  return aligned;
}

AlignedFolders align_and_save(const AlignStudy& study) {
  check_words(study.words);
  NewFolder folder(study.out, "the aligned model");
  const std::string out_a = study.out_a.empty() ? study.out + "-a" : study.out_a;
  std::vector<std::string> overrides = study.overrides;
  if (study.words.learn == 0) overrides.emplace_back("train.device=cpu");
  LoadedModel a = load_model(study.a, overrides), b = load_model(study.b, overrides);
  if (const std::string difference = first_difference(a, b); !difference.empty())
    fail_usage("'{}' can't be aligned with '{}': {}", study.b, study.a, difference);
  std::optional<NewFolder> folder_a;
  if (moves_first(a.config.model, align_options(study.words, nullptr, 1)))
    folder_a.emplace(out_a, "the first model's copy");
  const AlignedModels aligned = align_models(a, b, study.words, tokens_of(study, a));
  if (aligned.moved_a) save_aligned(a, folder_a.value());
  save_aligned(b, folder);
  return {aligned.report, aligned.moved_a ? out_a : study.a};
}

}  // namespace refract
