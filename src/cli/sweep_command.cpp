#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <thread>

#include "cli/commands.h"
#include "core/error.h"
#include "core/files.h"
#include "core/log.h"
#include "report/sweep/sweep_report.h"
#include "studies/sweep/sweep_plan.h"
#include "studies/sweep/sweep_runner.h"
#include "train/run_config.h"
#include "train/signals.h"
#include "transforms/plugin.h"

namespace refract {
namespace {

namespace fs = std::filesystem;

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
    line.positional("recipe", recipe_, "TOML file with the settings");
    line.positional("overrides", overrides_, "key=value settings of all runs");
    line.option("--over", over_, "key=value,value,... to sweep; given several times: all pairs",
                true);
    line.option("--out", out_, "the sweep's folder; default: run.dir of the recipe and '-sweep'");
    line.option("--jobs", jobs_, "runs side by side; they share the CPU's cores and the GPUs");
    line.option("--margin", margin_,
                "nats by which the smoothed loss may exceed its start before a run is ended");
    line.flag("--json", json_, "print the table as one JSON object");
  }
  int run() override;

 private:
  std::vector<std::string> arguments(const SweepRun& run) const;
  void write_tables(const SweepOutcome& outcome) const;
  std::vector<size_t> places_of_plan() const;
  int conclude(bool complete) const;

  std::string recipe_, out_;
  std::vector<std::string> overrides_, over_;
  int64_t jobs_ = 1;
  double margin_ = 0.5;
  bool json_ = false;
  fs::path folder_;
  std::vector<PlannedRun> planned_;
  SweepRecord sweep_;
};

// The command line of one run.
std::vector<std::string> SweepCommand::arguments(const SweepRun& run) const {
  const auto plan = std::ranges::find(planned_, run.name,
                                      [](const PlannedRun& planned) { return planned.run.name; });
  std::vector<std::string> out = {"train", recipe_};
  out.insert(out.end(), plan->overrides.begin(), plan->overrides.end());
  out.push_back("run.dir=" + nlohmann::json((folder_ / run.name).string()).dump());
  if (jobs_ > 1 && !sets_key(read_recipe(recipe_, plan->overrides), "train.threads")) {
    const int64_t cores = std::max(1U, std::thread::hardware_concurrency());
    out.push_back(fmt::format("train.threads={}", std::max<int64_t>(1, cores / jobs_)));
  }
  for (const std::string& plugin : loaded_plugins()) out.insert(out.end(), {"--plugin", plugin});
  out.insert(out.end(), {"--resume", "--json"});
  return out;
}

void SweepCommand::write_tables(const SweepOutcome& outcome) const {
  write_file_atomically(folder_ / "table.csv", outcome_csv(outcome));
  write_file_atomically(folder_ / "table.json", outcome_json(outcome).dump(1) + "\n");
}

int SweepCommand::run() {
  if (jobs_ < 1) fail_usage("--jobs {} must be at least 1", jobs_);
  if (!(margin_ > 0)) fail_usage("--margin {} must be above 0", margin_);
  std::vector<SweptKey> keys;
  for (const std::string& text : over_) keys.push_back(parse_swept_key(text));
  planned_ = plan_sweep(recipe_, overrides_, keys);
  folder_ =
      out_.empty()
          ? fs::path(make_run_config(read_recipe(recipe_, overrides_), recipe_).run.dir + "-sweep")
          : fs::path(out_);
  StopSignals signals;
  std::error_code error;
  fs::create_directories(folder_, error);
  if (error) fail("can't make the sweep's folder '{}': {}", folder_.string(), error.message());
  const SweepLock lock(folder_);
  sweep_ = merge_sweep(folder_, recipe_, keys, planned_);
  write_sweep(folder_, sweep_);
  log_info("{} runs in {}, {} at a time", sweep_.runs.size(), folder_.string(), jobs_);

  SweepRunner::Options options;
  options.folder = folder_;
  options.jobs = jobs_;
  options.margin = margin_;
  options.arguments = [this](const SweepRun& run) { return arguments(run); };
  options.on_change = [this] { write_tables(read_outcome(folder_, sweep_)); };
  return conclude(SweepRunner(options, sweep_).run(places_of_plan()));
}

// Of the planned runs in the sweep, which may hold others from an earlier call.
std::vector<size_t> SweepCommand::places_of_plan() const {
  std::vector<size_t> places;
  for (const PlannedRun& planned : planned_) {
    const auto found = std::ranges::find(sweep_.runs, planned.run.name, &SweepRun::name);
    places.push_back(static_cast<size_t>(found - sweep_.runs.begin()));
  }
  return places;
}

// Tables, report, exit code. A diverged run is an outcome; one that failed or was stopped is not.
int SweepCommand::conclude(bool complete) const {
  const SweepOutcome outcome = read_outcome(folder_, sweep_);
  write_tables(outcome);
  try {
    sweep_page(folder_, outcome).write(folder_ / "report.html");
  } catch (const std::exception& error) {  // the table stands all the same
    log_warning("no report was written: {}", error.what());
  }
  if (json_) {
    const nlohmann::json result = {
        {"sweep", folder_.string()}, {"complete", complete}, {"runs", outcome_json(outcome)}};
    fmt::print("{}\n", result.dump());
  } else {
    std::fputs(outcome_table(outcome).c_str(), stdout);
  }
  const std::vector<size_t> places = places_of_plan();
  const bool all = std::ranges::all_of(
      places, [this](size_t place) { return has_ended(sweep_.runs[place].state); });
  if (all) {
    log_info("done: table.csv, table.json and report.html are in {}", folder_.string());
  } else {
    log_info("not complete; the same command goes on");
  }
  return static_cast<int>(all ? ExitCode::kOk : ExitCode::kFailed);
}

}  // namespace

std::unique_ptr<Command> make_sweep_command() { return std::make_unique<SweepCommand>(); }

}  // namespace refract
