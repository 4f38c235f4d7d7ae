#include <fmt/format.h>

#include <cstdio>
#include <nlohmann/json.hpp>

#include "core/config.h"
#include "core/error.h"
#include "core/log.h"
#include "core/paths.h"
#include "core/system/command_line.h"
#include "runs/train.h"
#include "train/run_config.h"
#include "transforms/plugin.h"

namespace refract {
namespace {

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
    line.positional("recipe", recipe_,
                    "TOML file with the settings; with --resume a run's folder has its own", false);
    line.positional("overrides", overrides_, "key=value settings that replace the recipe's");
    line.flag("--resume", resume_, "go on with the run in run.dir from its newest checkpoint");
    line.flag("--help-keys", help_keys_, "list every setting with type, limits and default");
    line.flag("--json", json_, "print the outcome as one JSON object");
  }
  int run() override;

 private:
  std::string recipe_;
  std::vector<std::string> overrides_;
  bool resume_ = false, help_keys_ = false, json_ = false;
};

void print_keys() {
  Fields fields;
  RunConfig defaults;
  describe(fields, defaults);
  std::fputs(fields.help_text().c_str(), stdout);
}

void print_json(const TrainedRun& run) {
  nlohmann::json out = {{"run", run.folder},
                        {"step", run.result.step},
                        {"finished", run.result.finished},
                        {"loss", run.result.loss}};
  if (const auto& evaluation = run.result.evaluation) {
    out["validation"] = {{"loss", evaluation->loss},
                         {"perplexity", evaluation->perplexity()},
                         {"accuracy", evaluation->accuracy},
                         {"tokens", evaluation->tokens}};
  }
  fmt::print("{}\n", out.dump());
}

// What goes on with the run when it is pasted; a kind from a plug-in is not known without it.
std::string resume_command(const std::string& folder) {
  std::string command = "refract train " + shell_word(folder) + " --resume";
  for (const std::string& plugin : loaded_plugins()) command += " --plugin " + shell_word(plugin);
  return command;
}

int TrainCommand::run() {
  if (help_keys_) {
    print_keys();
    return 0;
  }
  if (recipe_.empty()) fail_usage("train needs a recipe, e.g. refract train recipes/demo.toml");
  const TrainedRun run = train_recipe(recipe_, overrides_, resume_);
  if (json_ && run.speaks) print_json(run);
  if (run.result.finished) {
    const std::string curves =
        run.report.empty() ? "" : fmt::format(", its curves are in {}", run.report);
    log_info("done: the run is in {}{}; try: refract generate {} --prompt \"...\"", run.folder,
             curves, shell_word(run.folder));
    return static_cast<int>(ExitCode::kOk);
  }
  log_info("stopped by a signal at step {}; the run is saved; go on with: {}", run.result.step,
           resume_command(run.folder));
  return static_cast<int>(ExitCode::kFailed);
}

}  // namespace

std::unique_ptr<Command> make_train_command() { return std::make_unique<TrainCommand>(); }

}  // namespace refract
