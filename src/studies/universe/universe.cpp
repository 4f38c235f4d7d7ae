#include "studies/universe/universe.h"

#include <algorithm>
#include <filesystem>
#include <memory>
#include <utility>

#include "analysis/weights.h"
#include "core/choices.h"
#include "core/error.h"
#include "core/progress.h"
#include "core/system/new_folder.h"
#include "data/dataset.h"
#include "runs/loaded_model.h"
#include "runs/same_model.h"
#include "studies/connectivity/connectivity_config.h"
#include "studies/own_corpus.h"
#include "studies/path_measure.h"
#include "studies/universe/universe_output.h"
#include "train/batch_count.h"

namespace refract {
namespace {

namespace fs = std::filesystem;

void check_universe_options(const UniverseStudy& s) {
  require_choice("--split", s.split, {"train", "val"});
  require_choice("--residual", s.residual, {"none", "permutation"});
  if (s.models.size() < 2)
    fail_usage("a common frame takes at least two models; {} is given", s.models.size());
  if (s.alphas < 2) fail_usage("--alphas {} is too few: a path has its two ends", s.alphas);
  if (s.alphas > kMostAlphas)
    fail_usage("--alphas {} is too many: at most {} are possible", s.alphas, kMostAlphas);
}

class Universe {
 public:
  explicit Universe(const UniverseStudy& study) : study_(study) {}

  void open();
  UniverseResult measure();
  void save(const fs::path& out);

 private:
  using Corners = std::vector<Weights>;
  void open_stream();
  Corners corners() const;
  std::vector<std::vector<double>> barriers(const Corners& corners, const std::string& label);
  Evaluation loss_at(const Weights& weights);

  const UniverseStudy& study_;
  std::vector<LoadedModel> models_;
  LoadedModel mean_;  // computes, too
  NamedStream stream_;
  PointOptions options_;
};

void Universe::open() {
  for (const std::string& name : study_.models) {
    models_.push_back(load_model(name, study_.overrides));
    if (!models_.back().rules.empty()) {
      fail_usage(
          "'{}' has transformed layers, and only dense models have a common frame; export it "
          "merged first (refract export)",
          name);
    }
    if (const std::string difference = first_difference(models_[0], models_.back());
        !difference.empty()) {
      fail_usage("'{}' and '{}' have no common frame: {}", study_.models[0], name, difference);
    }
    if (!models_[0].tokenizer) models_[0].tokenizer = models_.back().tokenizer;
  }
  require_corpus(models_[0], study_.overrides, study_.data);
  mean_ = load_model(study_.models[0], study_.overrides);
  open_stream();
  options_.context = models_[0].config.data.context;
  options_.max_windows = batch_count(study_.batches, "--batches") * models_[0].config.train.batch;
}

void Universe::open_stream() {
  LoadedModel& first = models_[0];
  if (!study_.data.empty()) {
    first.config.data.path = study_.data;
    stream_ = {"data", open_corpus(first.config.data, first.tokenizer)};
  } else {
    const Dataset data = open_dataset(first.config.data, first.tokenizer);
    stream_ = {study_.split, study_.split == "train" ? data.train : data.validation};
  }
  if (!stream_.stream || stream_.stream->size() < 2) {
    fail_usage("'{}' has no {} split; choose --split or give --data", study_.models[0],
               study_.split);
  }
  check_tokens(*stream_.stream, first.config.model.vocab_size, "the corpus");
}

Universe::Corners Universe::corners() const {
  Corners all;
  for (const LoadedModel& model : models_) all.push_back(weights_of(*model.model));
  return all;
}

Evaluation Universe::loss_at(const Weights& weights) {
  set_weights(*mean_.model, weights);
  return evaluate(*mean_.model, *stream_.stream, options_.context, options_.max_windows);
}

std::vector<std::vector<double>> Universe::barriers(const Corners& corners,
                                                    const std::string& label) {
  const size_t count = corners.size();
  std::vector<std::vector<double>> matrix(count, std::vector<double>(count, 0));
  Progress progress(label, static_cast<int64_t>(count * (count - 1) / 2));
  int64_t done = 0;
  for (size_t a = 0; a < count; ++a) {
    for (size_t b = a + 1; b < count; ++b) {
      const PathResult path =
          measure_path(*mean_.model, {corners[a], corners[b]}, options_, {stream_}, study_.alphas);
      matrix[a][b] = matrix[b][a] = path.loss_barrier(0).barrier;
      progress.update(++done);
    }
  }
  progress.finish();
  return matrix;
}

UniverseResult Universe::measure() {
  UniverseResult result;
  result.split = stream_.name;
  std::vector<Decoder*> decoders;
  for (const LoadedModel& model : models_) {
    result.folders.push_back(model.folder.string());
    decoders.push_back(model.model.get());
  }
  const Corners before = corners();
  for (const Weights& corner : before) result.models.push_back(loss_at(corner));
  result.before = barriers(before, "before");
  write_mean(decoders, *mean_.model);
  result.mean_before = loss_at(weights_of(*mean_.model));
  result.report = match_universe(decoders, *mean_.model, study_.residual);
  const Weights mean = weights_of(*mean_.model);
  result.after = barriers(corners(), "after");
  result.mean_after = loss_at(mean);  // which also leaves the mean in its model
  return result;
}

void Universe::save(const fs::path& out) {
  for (size_t i = 0; i < models_.size(); ++i)
    save_as_loaded(models_[i], *models_[i].model, out / ("aligned-" + std::to_string(i + 1)));
  save_as_loaded(mean_, *mean_.model, out / "barycentre");
}

}  // namespace

UniverseResult match_and_save(const UniverseStudy& study) {
  check_universe_options(study);
  NewFolder folder(study.out, "the common frame");
  Universe universe(study);
  universe.open();
  UniverseResult result = universe.measure();
  universe.save(folder.path());
  write_universe(result, folder.path());
  folder.commit();
  return result;
}

}  // namespace refract
