#include <filesystem>
#include <nlohmann/json.hpp>

#include "core/log.h"
#include "core/system/command_line.h"
#include "studies/interpolate.h"

namespace refract {
namespace {

class InterpolateCommand : public Command {
 public:
  std::string name() const override { return "interpolate"; }
  std::string summary() const override {
    return "Loss along the straight path between two models, and the barrier on it";
  }
  std::string example() const override {
    return "refract interpolate runs/demo/checkpoints/step-00000100 runs/demo --batches 20";
  }
  void declare(CommandLine& line) override;
  int run() override;

 private:
  std::string a_, b_;
  std::vector<std::string> overrides_;
  InterpolateStudy study_;
  bool json_ = false;
};

void InterpolateCommand::declare(CommandLine& line) {
  line.positional(
      "A", a_, "a run, a checkpoint, a Hugging Face folder, a GGUF file, or a Hub id in the cache");
  line.positional("B", b_, "another model of the same architecture");
  line.positional("overrides", overrides_,
                  "key=value settings; with --plane the third model comes first");
  line.option("--alphas", study_.alphas, "points on the path, both ends included");
  line.option("--batches", study_.batches,
              "\"all\" of a split, or a number of batches of train.batch sequences from its start");
  line.option("--splits", study_.splits, "which splits to evaluate: train, val, or both");
  line.option(
      "--align", study_.align,
      "align B with A first: none, or by weights or activations (see refract align); a path is "
      "then shown before and after it");
  line.option("--residual", study_.maps.residual, "with --align: as of refract align");
  line.option("--heads", study_.maps.heads, "with --align: as of refract align");
  line.option("--learn", study_.maps.learn, "with --align: as of refract align");
  line.option("--plane", study_.plane,
              "evaluate a grid of N x N points in the plane through A, B and C");
  line.option("--data", study_.data, "evaluate on another corpus; may be given several times");
  line.option("--buffers", study_.buffers,
              "running ranges of the points between the models: interpolate, or re-estimate from "
              "training batches");
  line.option(
      "--engine", study_.engine,
      "batched (all alphas in one pass), prefixes (each distinct prefix of a window once, on a "
      "CPU), single, or auto: batched on a GPU, prefixes on a CPU if enough of them repeat");
  line.option("--products", study_.products,
              "products of the batched engine in fp32: fp32, split (on tensor cores, within 3 * "
              "2^-16), half (in fp16), or auto: split on a GPU, fp32 on a CPU");
  line.option("--out", study_.out, "folder for path.json, path.csv and report.html");
  line.flag("--json", json_, "print one JSON object");
}

int InterpolateCommand::run() {
  study_.models = {a_, b_};
  study_.overrides = overrides_;
  // A third model stands where an override could.
  if (!overrides_.empty() && overrides_[0].find('=') == std::string::npos) {
    study_.models.push_back(overrides_[0]);
    study_.overrides.erase(study_.overrides.begin());
  }
  const InterpolateResult result = interpolate_models(study_);
  if (json_) {
    fmt::print("{}\n", interpolate_json(study_, result).dump());
    return 0;
  }
  const PathResult* before = result.before ? &*result.before : nullptr;
  fmt::print("{}", result.plane ? plane_text(*result.plane) : path_text(result.path, before));
  log_info("wrote {}", (std::filesystem::path(study_.out) / "report.html").string());
  return 0;
}

}  // namespace

std::unique_ptr<Command> make_interpolate_command() {
  return std::make_unique<InterpolateCommand>();
}

}  // namespace refract
