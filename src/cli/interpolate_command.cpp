#include <algorithm>
#include <chrono>
#include <nlohmann/json.hpp>
#include <thread>

#include "analysis/path.h"
#include "analysis/plane.h"
#include "cli/commands.h"
#include "core/error.h"
#include "core/files.h"
#include "core/log.h"
#include "core/progress.h"
#include "data/dataset.h"
#include "report/page/page.h"
#include "report/run_record.h"
#include "runs/loaded_model.h"
#include "runs/same_model.h"
#include "studies/alignment.h"
#include "studies/choices.h"
#include "studies/connectivity_config.h"
#include "studies/path_output.h"
#include "studies/plane_output.h"
#include "train/batch_count.h"
#include "transforms/model_builder.h"

namespace refract {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

struct NamedStream {
  std::string name;
  std::shared_ptr<TokenStream> stream;
};

class InterpolateCommand : public Command {
 public:
  std::string name() const override { return "interpolate"; }
  std::string summary() const override {
    return "Loss along the straight path between two models, and the barrier on it";
  }
  std::string example() const override {
    return "refract interpolate runs/demo/checkpoints/step-00001500 runs/demo --batches 20   "
           "(after "
           "make demo)";
  }
  void declare(CommandLine& line) override;
  int run() override;

 private:
  void prepare_folder() const;
  void open_models();
  void warn_of_other_settings(const LoadedModel& model, const std::string& name) const;
  void open_streams();
  void take_corners();
  void warm_up(const PointOptions& options);
  PointOptions point_options() const;
  PathResult measure();
  json describe(const PathResult& result) const;
  int run_plane();
  void write_files(const PathResult& result) const;
  void write_page(const PathResult& result) const;

  std::string a_, b_, out_ = "interpolation", batches_ = "all", splits_ = "train,val";
  std::string engine_ = "auto", buffers_ = "interpolate", align_ = "none", products_ = "auto";
  std::vector<std::string> overrides_, data_;
  int64_t alphas_ = 30, plane_ = 0;
  bool json_ = false;
  LoadedModel& first() { return models_[0]; }
  const LoadedModel& first() const { return models_[0]; }
  std::vector<LoadedModel> models_;  // the first one also computes
  std::vector<Weights> corners_;
  std::vector<NamedStream> streams_;
  std::shared_ptr<TokenStream> calibration_;
  PointOptions options_;
  std::string used_engine_;
  double seconds_ = 0;
};

void InterpolateCommand::declare(CommandLine& line) {
  line.positional("A", a_, "a run, a checkpoint, a Hugging Face folder, or a Hub id in the cache");
  line.positional("B", b_, "another of the same architecture");
  line.positional("overrides", overrides_, "a third model with --plane; key=value settings");
  line.option("--alphas", alphas_, "points on the path, both ends included");
  line.option("--batches", batches_,
              "\"all\" of a split, or so many batches of train.batch sequences from its start");
  line.option("--splits", splits_, "which splits to evaluate: train, val, or both");
  line.option("--align", align_,
              "align B with A first: none, or by weights or activations (see refract align)");
  line.option("--plane", plane_, "evaluate a grid of N x N points in the plane through A, B and C");
  line.option("--data", data_, "another corpus instead; may be given several times");
  line.option(
      "--buffers", buffers_,
      "running ranges between the models: interpolate, or re-estimate from training batches");
  line.option("--engine", engine_,
              "batched (all alphas in one pass), prefixes (each distinct prefix of a window once, "
              "on a CPU), "
              "single, or auto: batched on a GPU, prefixes on a CPU where enough of them repeat");
  line.option(
      "--products", products_,
      "of the batched engine in fp32: fp32, split (on tensor cores, within 3 * 2^-16), half (in "
      "fp16), or auto: split on a GPU, else fp32");
  line.option("--out", out_, "folder for path.json, path.csv and report.html");
  line.flag("--json", json_, "print one JSON object");
}

void InterpolateCommand::open_models() {
  // A third model stands where an override could.
  std::vector<std::string> names = {a_, b_};
  if (!overrides_.empty() && overrides_[0].find('=') == std::string::npos) {
    names.push_back(overrides_[0]);
    overrides_.erase(overrides_.begin());
  }
  if ((names.size() == 3) != (plane_ > 0))
    fail_usage("three models are compared with --plane N, two without; {} are given", names.size());
  for (const std::string& name : names) {
    models_.push_back(load_model(name, overrides_));
    if (const std::string difference = first_difference(models_[0], models_.back());
        !difference.empty())
      fail_usage("there is no path between '{}' and '{}': {}", a_, name, difference);
    warn_of_other_settings(models_.back(), name);
    if (!models_[0].tokenizer) models_[0].tokenizer = models_.back().tokenizer;
  }
}

// All models are evaluated with A's settings.
void InterpolateCommand::warn_of_other_settings(const LoadedModel& model,
                                                const std::string& name) const {
  const RunConfig &ours = first().config, &theirs = model.config;
  if (ours.data.context != theirs.data.context)
    log_warning("'{}' has data.context = {}; it is evaluated with {}, as '{}' is", name,
                theirs.data.context, ours.data.context, a_);
  if (ours.train.precision != theirs.train.precision)
    log_warning("'{}' has train.precision = {}; it is evaluated in {}, as '{}' is", name,
                theirs.train.precision, ours.train.precision, a_);
}

// The corners, the others aligned with the first where that is asked for. Their own models go.
void InterpolateCommand::take_corners() {
  for (size_t i = 0; i < models_.size(); ++i) {
    if (i > 0 && align_ != "none")
      align_models(models_[0], models_[i], align_, "auto", calibration_);
    corners_.push_back(weights_of(*models_[i].model));
    if (i > 0) models_[i].model.reset();
  }
}

void InterpolateCommand::open_streams() {
  if (!data_.empty()) {
    first().config.data.path = data_;
    streams_ = {{"data", open_corpus(first().config.data, first().tokenizer)}};
    calibration_ = streams_[0].stream;
  } else {
    const Dataset data = open_dataset(first().config.data, first().tokenizer);
    calibration_ = data.train;
    for (size_t begin = 0; begin <= splits_.size();) {
      const size_t comma = std::min(splits_.find(',', begin), splits_.size());
      const std::string name = splits_.substr(begin, comma - begin);
      require_choice("--splits", name, {"train", "val"});
      if (std::ranges::find(streams_, name, &NamedStream::name) != streams_.end())
        fail_usage("--splits {} names {} twice", splits_, name);
      streams_.push_back({name, name == "train" ? data.train : data.validation});
      if (!streams_.back().stream || streams_.back().stream->size() < 2)
        fail_usage("'{}' has no {} split; choose --splits or give --data", a_, name);
      begin = comma + 1;
    }
  }
  for (const NamedStream& split : streams_)
    check_tokens(*split.stream, first().config.model.vocab_size, "the corpus");
  if (buffers_ == "re-estimate" && calibration_->size() <= first().config.data.context)
    fail_usage("--buffers re-estimate needs a window of {} tokens to see; the corpus has {}",
               first().config.data.context + 1, calibration_->size());
}

// What is computed is thrown away, and what is wrong is left to measure().
void InterpolateCommand::warm_up(const PointOptions& options) {
  try {
    PointEvaluator evaluator(*first().model, corners_, options);
    evaluator.warm_up(path_points(equally_spaced(alphas_)));
  } catch (const std::exception&) {
    return;
  }
}

// All but the calibration tokens.
PointOptions InterpolateCommand::point_options() const {
  PointOptions options;
  options.context = first().config.data.context;
  options.engine = engine_;
  if (!first().rules.empty()) {
    if (engine_ == "batched" || engine_ == "prefixes")
      fail_usage("--engine {} is for models without [[transform]] rules", engine_);
    options.engine = "single";
  }
  options.products = products_;
  options.buffers = buffers_;
  options.calibration_batch = first().config.train.batch;
  options.max_windows = batch_count(batches_, "--batches") * first().config.train.batch;
  // A decoder that was only declared holds the buffers of a new model.
  const TransformedModel fresh = build_model(first().config.model, first().config.transform, a_);
  for (const BufferStore::Buffer& buffer : fresh.decoder->buffers().all())
    options.fresh_buffers.push_back(buffer.tensor);
  return options;
}

PathResult InterpolateCommand::measure() {
  PathResult result;
  result.alphas = equally_spaced(alphas_);
  result.geometry = geometry_of(corners_[0], corners_[1]);
  PointEvaluator evaluator(*first().model, corners_, options_);
  const auto start = std::chrono::steady_clock::now();
  const auto points = static_cast<int64_t>(streams_.size()) * alphas_;
  Progress progress("interpolate", points);
  for (const NamedStream& split : streams_) {
    const auto before = static_cast<int64_t>(result.splits.size()) * alphas_;
    result.splits.push_back(
        {split.name, evaluator.evaluate(*split.stream, path_points(result.alphas),
                                        [&](int64_t done) { progress.update(before + done); })});
  }
  progress.finish();
  used_engine_ = evaluator.engine();
  seconds_ = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  return result;
}

json InterpolateCommand::describe(const PathResult& result) const {
  json out = path_json(result);
  out["a"] = first().folder.string();
  out["b"] = models_[1].folder.string();
  out["batches"] = batches_;
  out["buffers"] = buffers_;
  out["align"] = align_;
  out["seconds"] = seconds_;  // of the evaluation
  out["engine"] = used_engine_;
  return out;
}

void InterpolateCommand::write_page(const PathResult& result) const {
  Page page(fmt::format("The path between {} and {}", a_, b_),
            fmt::format("{} points, alpha 1 is {}, alpha 0 is {}", alphas_, first().folder.string(),
                        models_[1].folder.string()));
  add_path(page, result);
  page.write(fs::path(out_) / "report.html");
}

void InterpolateCommand::write_files(const PathResult& result) const {
  write_file_atomically(fs::path(out_) / "path.json", describe(result).dump(1) + "\n");
  write_file_atomically(fs::path(out_) / "path.csv", path_csv(result));
  write_page(result);
}

int InterpolateCommand::run_plane() {
  const Plane plane(corners_);
  PlaneResult result;
  result.corners = plane.corners();
  const double high_x = std::max(result.corners[1][0], result.corners[2][0]);
  result.x = axis(std::min(0.0, result.corners[2][0]), high_x, plane_, 0.2);
  result.y = axis(0, result.corners[2][1], plane_, 0.2);
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
  for (const LoadedModel& model : models_) result.names.push_back(model.folder.string());
  write_plane(result, out_);
  fmt::print("{}", json_ ? plane_json(result).dump() + "\n" : plane_text(result));
  if (!json_) log_info("written: {}", (fs::path(out_) / "report.html").string());
  return 0;
}

// Before anything is computed, so that no result is lost for want of a place.
void InterpolateCommand::prepare_folder() const {
  if (is_run(out_))
    fail_usage("--out {} is a run, whose report.html would be lost; choose another folder", out_);
  std::error_code error;
  if (!out_.empty()) fs::create_directories(out_, error);
  if (out_.empty() || error)
    fail_usage("--out: can't make the folder '{}'{}{}", out_, error ? ": " : "",
               error ? error.message() : "");
}

int InterpolateCommand::run() {
  constexpr int64_t kMostSide = 1000;
  if (alphas_ < 2) fail_usage("--alphas {}: a path has at least its two ends", alphas_);
  if (alphas_ > kMostAlphas) fail_usage("--alphas {}: at most {}", alphas_, kMostAlphas);
  require_choice("--buffers", buffers_, {"interpolate", "re-estimate"});
  require_choice("--engine", engine_, {"auto", "batched", "prefixes", "single"});
  require_choice("--products", products_, {"auto", "fp32", "split", "half"});
  require_choice("--align", align_, {"none", "weights", "activations"});
  if (plane_ != 0 && plane_ < 2)
    fail_usage("--plane {}: a grid has at least 2 points a side", plane_);
  if (plane_ > kMostSide) fail_usage("--plane {}: at most {} points a side", plane_, kMostSide);
  prepare_folder();
  open_models();
  options_ = point_options();
  if (align_ == "none" && plane_ == 0) {  // aligning may read the corpus
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
  if (plane_ > 0) return run_plane();
  const PathResult result = measure();
  write_files(result);
  if (json_) {
    fmt::print("{}\n", describe(result).dump());
  } else {
    fmt::print("{}", path_text(result));
    log_info("written: {}", (fs::path(out_) / "report.html").string());
  }
  return 0;
}

}  // namespace

std::unique_ptr<Command> make_interpolate_command() {
  return std::make_unique<InterpolateCommand>();
}

}  // namespace refract
