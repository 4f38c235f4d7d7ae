#include <algorithm>
#include <cstdio>
#include <nlohmann/json.hpp>

#include "analysis/model_flops.h"
#include "cli/commands.h"
#include "core/config.h"
#include "core/error.h"
#include "core/files.h"
#include "core/log.h"
#include "formats/load_weights.h"
#include "report/run_report.h"
#include "runs/reporter.h"
#include "runs/run_session.h"
#include "runs/session.h"
#include "train/trainer.h"

namespace refract {
namespace {

namespace fs = std::filesystem;

// One line on how well the transformed layers stand for the weights they started from.
void report_taken_over(const std::vector<TakenOver>& taken) {
  if (taken.empty()) return;
  const auto by_error = [](const TakenOver& a, const TakenOver& b) {
    return a.relative_error < b.relative_error;
  };
  const auto worst = std::max_element(taken.begin(), taken.end(), by_error);
  double sum = 0;
  for (const TakenOver& layer : taken) sum += layer.relative_error;
  log_info(
      "{} transformed layers took over dense weights, relative error {:.3g} on average, {:.3g} "
      "at worst ({})",
      taken.size(), sum / static_cast<double>(taken.size()), worst->relative_error, worst->name);
}

// "1.01M parameters", or "1.03M parameters, 24.6k of them trained" where a part is frozen.
std::string parameter_text(const ParameterArena& arena) {
  const auto text = [](int64_t count) { return format_count(static_cast<double>(count)); };
  std::string all = text(arena.count()) + " parameters";
  if (arena.trainable_count() < arena.count())
    all += fmt::format(", {} of them trained", text(arena.trainable_count()));
  return all;
}

class TrainCommand : public Command {
 public:
  std::string name() const override { return "train"; }
  std::string summary() const override {
    return "Train a model from scratch, or go on from a checkpoint";
  }
  std::string example() const override {
    return "refract train recipes/demo.toml train.steps=200 run.dir=runs/first";
  }
  void declare(CommandLine& line) override {
    line.positional("recipe", recipe_, "TOML file with the settings", false);
    line.positional("overrides", overrides_, "key=value settings that replace the recipe's");
    line.flag("--resume", resume_, "go on with the run in run.dir from its newest checkpoint");
    line.flag("--help-keys", help_keys_, "list every setting with type, limits and default");
    line.flag("--json", json_, "print the outcome as one JSON object");
  }
  int run() override;

 private:
  void prepare_folder() const;
  RunSession open(const Recipe& recipe, at::Device device);
  int report(const RunResult& result) const;

  std::string recipe_;
  std::vector<std::string> overrides_;
  bool resume_ = false, help_keys_ = false, json_ = false;
  RunConfig config_;
};

void TrainCommand::prepare_folder() const {
  const fs::path folder = config_.run.dir;
  if (fs::exists(folder / "config.toml") && !resume_) {
    fail_usage("'{}' already holds a run; go on with it by --resume, or choose another run.dir",
               folder.string());
  }
  make_run_folder(folder);
}

RunSession TrainCommand::open(const Recipe& recipe, at::Device device) {
  const Dataset data = open_run_data(config_, recipe.source, recipe.names_tokenizer);
  log_info("data: {}", data.description);
  RunSession session = open_session(config_, data, recipe.source, device, recipe_);
  if (!session.plan.empty()) log_info("transforms:\n{}", session.plan);
  report_taken_over(session.taken_over);
  config_ = session.config;
  return session;
}

int TrainCommand::run() {
  if (help_keys_) {
    Fields fields;
    RunConfig defaults;
    describe(fields, defaults);
    std::fputs(fields.help_text().c_str(), stdout);
    return 0;
  }
  if (recipe_.empty()) fail_usage("train needs a recipe, e.g. refract train recipes/demo.toml");
  const Recipe recipe = open_recipe(recipe_, overrides_);
  config_ = recipe.config;
  prepare_folder();
  const at::Device device = open_device(config_);
  log_to_file(fs::path(config_.run.dir) / "log.txt");
  const RunSession session = open(recipe, device);
  RunReporter::Options options = reporter_options(session, device);
  if (resume_) options.resumed_from = Checkpoints(config_.run.dir).newest();
  RunReporter reporter(options);
  Trainer trainer(config_, *session.model, session.data, session.steps, reporter);
  // Only now is it a run: a start that failed above may be tried again with other settings.
  write_run_settings(session);
  if (options.resumed_from) trainer.resume();
  log_info("model: {} on {}, {}", parameter_text(session.model->arena()), device_name(device),
           config_.train.precision);
  log_info("run: {}", describe(cost_of_run(config_, *session.model, session.steps), config_));
  if (trainer.position() > 0) log_info("resuming from step {}", trainer.position());
  const RunResult result = trainer.run();
  reporter.finish();
  write_run_report(config_.run.dir);
  return report(result);
}

int TrainCommand::report(const RunResult& result) const {
  if (json_) {
    nlohmann::json out = {{"run", config_.run.dir},
                          {"step", result.step},
                          {"finished", result.finished},
                          {"loss", result.loss}};
    if (result.evaluation) {
      out["validation"] = {{"loss", result.evaluation->loss},
                           {"perplexity", result.evaluation->perplexity()},
                           {"accuracy", result.evaluation->accuracy},
                           {"tokens", result.evaluation->tokens}};
    }
    fmt::print("{}\n", out.dump());
  }
  if (result.finished) {
    log_info("done: the run is in {}; try: refract generate {} --prompt \"...\"", config_.run.dir,
             config_.run.dir);
    return static_cast<int>(ExitCode::kOk);
  }
  log_info(
      "stopped by a signal at step {}; the run is saved, go on with: refract train {} --resume",
      result.step, recipe_);
  return static_cast<int>(ExitCode::kFailed);
}

}  // namespace

std::unique_ptr<Command> make_train_command() { return std::make_unique<TrainCommand>(); }

}  // namespace refract
