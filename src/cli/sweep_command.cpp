#include <cstdio>
#include <nlohmann/json.hpp>

#include "core/error.h"
#include "core/log.h"
#include "core/system/command_line.h"
#include "studies/sweep/sweep.h"

namespace refract {
namespace {

class SweepCommand : public Command {
 public:
  std::string name() const override { return "sweep"; }
  std::string summary() const override {
    return "Train a recipe once for each combination of some settings, and compare";
  }
  std::string example() const override {
    return "refract sweep recipes/demo.toml --over optimizer.lr=1e-3,3e-3,1e-2 train.steps=200";
  }
  void declare(CommandLine& line) override {
    line.positional("recipe", study_.recipe, "TOML file with the settings");
    line.positional("overrides", study_.overrides, "key=value settings of all runs");
    line.option("--over", study_.over,
                "key=value,value,... to sweep; if given several times, every combination is run",
                true);
    line.option("--out", study_.out,
                "the sweep's folder; default: run.dir of the recipe and '-sweep'");
    line.option("--jobs", study_.jobs,
                "runs side by side; they share the CPU's cores and the GPUs");
    line.option("--margin", study_.margin,
                "nats by which the smoothed loss may exceed its start before a run is ended");
    line.flag("--json", json_, "print the table as one JSON object");
  }
  int run() override;

 private:
  SweepStudy study_;
  bool json_ = false;
};

int SweepCommand::run() {
  const SweepResult result = run_sweep(study_);
  const std::string folder = result.folder.string();
  if (json_) {
    const nlohmann::json out = {
        {"sweep", folder}, {"complete", result.complete}, {"runs", outcome_json(result.outcome)}};
    fmt::print("{}\n", out.dump());
  } else {
    std::fputs(outcome_table(result.outcome).c_str(), stdout);
  }
  if (!result.all_ended) {
    log_info("not complete; the same command goes on from here");
    return static_cast<int>(ExitCode::kFailed);
  }
  log_info("done: table.csv, table.json and report.html are in {}", folder);
  return static_cast<int>(ExitCode::kOk);
}

}  // namespace

std::unique_ptr<Command> make_sweep_command() { return std::make_unique<SweepCommand>(); }

}  // namespace refract
