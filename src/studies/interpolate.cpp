#include "studies/interpolate.h"

#include <algorithm>
#include <filesystem>
#include <memory>
#include <nlohmann/json.hpp>
#include <thread>

#include "analysis/path.h"
#include "analysis/plane.h"
#include "core/choices.h"
#include "core/error.h"
#include "core/files.h"
#include "core/log.h"
#include "core/progress.h"
#include "data/dataset.h"
#include "report/page/page.h"
#include "runs/loaded_model.h"
#include "runs/same_model.h"
#include "studies/connectivity/connectivity_config.h"
#include "studies/path_measure.h"
#include "studies/study_folder.h"
#include "train/batch_count.h"
#include "transforms/model_builder.h"

namespace refract {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

AlignWords words_of(const InterpolateStudy& study) {
  AlignWords words = study.maps;
  if (study.align != "none") words.by = study.align;
  return words;
}

void check_options(const InterpolateStudy& s) {
  constexpr int64_t kMostSide = 1000;
  if (s.alphas < 2)
    fail_usage("--alphas {} is too few: a path has at least its two ends", s.alphas);
  if (s.alphas > kMostAlphas)
    fail_usage("--alphas {} is too many: at most {} are possible", s.alphas, kMostAlphas);
  require_choice("--buffers", s.buffers, {"interpolate", "re-estimate"});
  require_choice("--engine", s.engine, {"auto", "batched", "prefixes", "single"});
  require_choice("--products", s.products, {"auto", "fp32", "split", "half"});
  require_choice("--align", s.align, {"none", "weights", "activations"});
  check_words(words_of(s), "--align");
  const AlignWords plain;
  if (s.align == "none" &&
      (s.maps.learn > 0 || s.maps.residual != plain.residual || s.maps.heads != plain.heads))
    fail_usage("--residual, --heads and --learn are ways to align; give --align too");
  if (s.align != "none" && s.plane != 0 && (s.maps.learn > 0 || s.maps.residual == "orthogonal"))
    fail_usage(
        "--plane aligns each model with the first, which --learn and --residual orthogonal may "
        "change; align two at a time with refract align");
  if (s.plane != 0 && s.plane < 2)
    fail_usage("--plane {} is too small: a grid has at least 2 points on each side", s.plane);
  if (s.plane > kMostSide)
    fail_usage("--plane {} is too large: at most {} points on each side are possible", s.plane,
               kMostSide);
}

// What the study opens: the models, their corners and the tokens that they are evaluated on.
class Interpolation {
 public:
  explicit Interpolation(const InterpolateStudy& study) : study_(study) {}

  // Everything up to the first evaluation.
  void open();
  PathResult measure_path() { return measure_between(*first().model, corners_, "interpolate"); }
  // Before the second model was aligned with the first; nothing where it was not.
  std::optional<PathResult> measure_before();
  PlaneResult measure_plane();
  std::vector<std::string> folders() const;

 private:
  void open_models();
  void warn_of_other_settings(const LoadedModel& model, const std::string& name) const;
  void open_streams();
  void open_splits();
  void take_corners();
  void align_corners();
  void warm_up(const PointOptions& options);
  PointOptions point_options() const;
  PathResult measure_between(Decoder& model, const std::vector<Weights>& corners,
                             const std::string& label);

  LoadedModel& first() { return models_[0]; }
  const LoadedModel& first() const { return models_[0]; }

  const InterpolateStudy& study_;
  std::vector<LoadedModel> models_;  // the first one also computes
  std::vector<Weights> corners_;
  std::vector<Weights> unaligned_;     // for a path: both as they were before they were aligned
  std::unique_ptr<Decoder> original_;  // computes with those where alignment replaced the first
  std::vector<NamedStream> streams_;
  std::shared_ptr<TokenStream> calibration_;
  PointOptions options_;
};

void Interpolation::open_models() {
  const std::vector<std::string>& names = study_.models;
  if ((names.size() == 3) != (study_.plane > 0))
    fail_usage("--plane N takes three models; without it two are compared; {} are given",
               names.size());
  for (const std::string& name : names) {
    models_.push_back(load_model(name, study_.overrides));
    if (const std::string difference = first_difference(models_[0], models_.back());
        !difference.empty())
      fail_usage("there is no path between '{}' and '{}': {}", names[0], name, difference);
    warn_of_other_settings(models_.back(), name);
    if (!first().tokenizer) first().tokenizer = models_.back().tokenizer;
  }
}

// All models are evaluated with A's settings.
void Interpolation::warn_of_other_settings(const LoadedModel& model,
                                           const std::string& name) const {
  const RunConfig &ours = first().config, &theirs = model.config;
  const std::string& a = study_.models[0];
  if (ours.data.context != theirs.data.context)
    log_warning("'{}' has data.context = {}; it is evaluated with {}, like '{}'", name,
                theirs.data.context, ours.data.context, a);
  if (ours.train.precision != theirs.train.precision)
    log_warning("'{}' has train.precision = {}; it is evaluated in {}, like '{}'", name,
                theirs.train.precision, ours.train.precision, a);
}

// The corners, the others aligned with the first where that is asked for. Their own models go.
void Interpolation::take_corners() {
  if (study_.align != "none") align_corners();
  for (size_t i = 0; i < models_.size(); ++i) {
    corners_.push_back(weights_of(*models_[i].model));
    if (i > 0) models_[i].model.reset();
  }
}

void Interpolation::align_corners() {
  if (study_.plane == 0) {
    for (const LoadedModel& model : models_) unaligned_.push_back(weights_of(*model.model));
  }
  for (size_t i = 1; i < models_.size(); ++i)
    original_ = align_models(models_[0], models_[i], words_of(study_), calibration_).original_a;
}

// The splits of A's own corpus that --splits names.
void Interpolation::open_splits() {
  const std::string& splits = study_.splits;
  const Dataset data = open_dataset(first().config.data, first().tokenizer);
  calibration_ = data.train;
  for (size_t begin = 0; begin <= splits.size();) {
    const size_t comma = std::min(splits.find(',', begin), splits.size());
    const std::string name = splits.substr(begin, comma - begin);
    require_choice("--splits", name, {"train", "val"});
    if (std::ranges::find(streams_, name, &NamedStream::name) != streams_.end())
      fail_usage("--splits {} names {} twice", splits, name);
    streams_.push_back({name, name == "train" ? data.train : data.validation});
    if (!streams_.back().stream || streams_.back().stream->size() < 2)
      fail_usage("'{}' has no {} split; choose --splits or give --data", study_.models[0], name);
    begin = comma + 1;
  }
}

void Interpolation::open_streams() {
  if (study_.data.empty()) {
    open_splits();
  } else {
    first().config.data.path = study_.data;
    streams_ = {{"data", open_corpus(first().config.data, first().tokenizer)}};
    calibration_ = streams_[0].stream;
  }
  for (const NamedStream& split : streams_)
    check_tokens(*split.stream, first().config.model.vocab_size, "the corpus");
  if (study_.buffers == "re-estimate" && calibration_->size() <= first().config.data.context)
    fail_usage("--buffers re-estimate needs a window of {} tokens; the corpus has {}",
               first().config.data.context + 1, calibration_->size());
}

// What is computed is thrown away, and what is wrong is left to measure_path().
void Interpolation::warm_up(const PointOptions& options) {
  try {
    PointEvaluator evaluator(*first().model, corners_, options);
    evaluator.warm_up(path_points(equally_spaced(study_.alphas)));
  } catch (const std::exception&) {
    return;
  }
}

// All but the calibration tokens.
PointOptions Interpolation::point_options() const {
  PointOptions options;
  options.context = first().config.data.context;
  options.engine = engine_for(study_.engine, !first().rules.empty(), "--engine " + study_.engine);
  options.products = study_.products;
  options.buffers = study_.buffers;
  options.calibration_batch = first().config.train.batch;
  options.max_windows = batch_count(study_.batches, "--batches") * first().config.train.batch;
  // A decoder that was only declared holds the buffers of a new model.
  const TransformedModel fresh =
      build_model(first().config.model, first().config.transform, study_.models[0]);
  for (const BufferStore::Buffer& buffer : fresh.decoder->buffers().all())
    options.fresh_buffers.push_back(buffer.tensor);
  return options;
}

void Interpolation::open() {
  open_models();
  options_ = point_options();
  if (study_.align == "none" && study_.plane == 0) {  // aligning may read the corpus
    take_corners();
    std::jthread beside;  // with options of its own: those here get their calibration tokens
    if (first().model->device().is_cuda())
      beside = std::jthread([this, options = options_] { warm_up(options); });
    open_streams();
  } else {
    open_streams();
    take_corners();
  }
  options_.calibration = calibration_;
}

std::optional<PathResult> Interpolation::measure_before() {
  if (unaligned_.empty()) return std::nullopt;
  return measure_between(original_ ? *original_ : *first().model, unaligned_, "before alignment");
}

PathResult Interpolation::measure_between(Decoder& model, const std::vector<Weights>& corners,
                                          const std::string& label) {
  Progress progress(label, static_cast<int64_t>(streams_.size()) * study_.alphas);
  PathResult result = refract::measure_path(model, corners, options_, streams_, study_.alphas,
                                            [&](int64_t done) { progress.update(done); });
  progress.finish();
  return result;
}

PlaneResult Interpolation::measure_plane() {
  const Plane plane(corners_);
  PlaneResult result;
  result.corners = plane.corners();
  const double high_x = std::max(result.corners[1][0], result.corners[2][0]);
  result.x = axis(std::min(0.0, result.corners[2][0]), high_x, study_.plane, 0.2);
  result.y = axis(0, result.corners[2][1], study_.plane, 0.2);
  std::vector<PointEvaluator::Coefficients> points;
  for (const auto& corner : result.corners)
    points.push_back(plane.coefficients(corner[0], corner[1]));
  for (double y : result.y) {
    for (double x : result.x) points.push_back(plane.coefficients(x, y));
  }
  PointEvaluator evaluator(*first().model, corners_, options_);
  const auto count = static_cast<int64_t>(points.size());
  Progress progress("plane", static_cast<int64_t>(streams_.size()) * count);
  for (const NamedStream& split : streams_) {
    const auto before = static_cast<int64_t>(result.splits.size()) * count;
    result.splits.push_back(
        {split.name, evaluator.evaluate(*split.stream, points,
                                        [&](int64_t done) { progress.update(before + done); })});
  }
  progress.finish();
  result.names = folders();
  return result;
}

std::vector<std::string> Interpolation::folders() const {
  std::vector<std::string> folders;
  for (const LoadedModel& model : models_) folders.push_back(model.folder.string());
  return folders;
}

void write_path(const InterpolateStudy& study, const InterpolateResult& result) {
  const fs::path out = study.out;
  write_file_atomically(out / "path.json", interpolate_json(study, result).dump(1) + "\n");
  write_file_atomically(out / "path.csv", path_csv(result.path));
  Page page(fmt::format("The path between {} and {}", study.models[0], study.models[1]),
            fmt::format("{} points, alpha 1 is {}, alpha 0 is {}", study.alphas, result.folders[0],
                        result.folders[1]));
  add_path(page, result.path, result.before ? &*result.before : nullptr);
  page.write(out / "report.html");
}

}  // namespace

InterpolateResult interpolate_models(const InterpolateStudy& study) {
  check_options(study);
  // Before anything is computed, so that no result is lost for want of a place.
  const StudyFolder folder(study.out);
  Interpolation interpolation(study);
  interpolation.open();
  InterpolateResult result;
  result.folders = interpolation.folders();
  if (study.plane > 0) {
    result.plane = interpolation.measure_plane();
    write_plane(*result.plane, study.out);
  } else {
    result.before = interpolation.measure_before();
    result.path = interpolation.measure_path();
    write_path(study, result);
  }
  return result;
}

json interpolate_json(const InterpolateStudy& study, const InterpolateResult& result) {
  if (result.plane) return plane_json(*result.plane);
  json out = path_json(result.path);
  out["a"] = result.folders[0];
  out["b"] = result.folders[1];
  out["batches"] = study.batches;
  out["buffers"] = study.buffers;
  out["align"] = study.align;
  if (study.align != "none") {
    out["residual"] = study.maps.residual;
    out["heads"] = study.maps.heads;
    out["learn"] = study.maps.learn;
  }
  out["seconds"] = result.path.seconds;
  if (result.before) out["before_alignment"] = path_json(*result.before);
  return out;
}

}  // namespace refract
