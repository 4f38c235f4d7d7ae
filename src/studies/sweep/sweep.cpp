#include "studies/sweep/sweep.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <system_error>
#include <thread>

#include "core/error.h"
#include "core/files.h"
#include "core/log.h"
#include "report/sweep/sweep_page.h"
#include "studies/sweep/sweep_runner.h"
#include "train/run_config.h"
#include "train/signals.h"
#include "transforms/plugin.h"

namespace refract {
namespace {

namespace fs = std::filesystem;

void write_tables(const fs::path& folder, const SweepOutcome& outcome) {
  write_file_atomically(folder / "table.csv", outcome_csv(outcome));
  write_file_atomically(folder / "table.json", outcome_json(outcome).dump(1) + "\n");
}

// The tables are what counts: they are there whatever becomes of the page.
void write_page(const fs::path& folder, const SweepOutcome& outcome) {
  try {
    sweep_page(folder, outcome).write(folder / "report.html");
  } catch (const std::exception& error) {
    log_warning("no report was written: {}", error.what());
  }
}

fs::path folder_of(const SweepStudy& study) {
  if (!study.out.empty()) return study.out;
  const RunConfig config =
      make_run_config(read_recipe(study.recipe, study.overrides), study.recipe);
  return config.run.dir + "-sweep";
}

void make_folder(const fs::path& folder) {
  std::error_code error;
  fs::create_directories(folder, error);
  if (error) fail("can't make the sweep's folder '{}': {}", folder.string(), error.message());
}

// Of the planned runs in the sweep, which may hold others from an earlier call.
std::vector<size_t> places_of(const std::vector<PlannedRun>& plan, const SweepRecord& sweep) {
  std::vector<size_t> places;
  for (const PlannedRun& planned : plan) {
    const auto found = std::ranges::find(sweep.runs, planned.run.name, &SweepRun::name);
    places.push_back(static_cast<size_t>(found - sweep.runs.begin()));
  }
  return places;
}

const PlannedRun& planned_as(const std::string& name, const std::vector<PlannedRun>& plan) {
  return *std::ranges::find(plan, name, [](const PlannedRun& planned) { return planned.run.name; });
}

}  // namespace

std::vector<std::string> sweep_arguments(const SweepStudy& study, const PlannedRun& planned,
                                         const fs::path& folder) {
  std::vector<std::string> out = {"train", study.recipe};
  out.insert(out.end(), planned.overrides.begin(), planned.overrides.end());
  out.push_back("run.dir=" + nlohmann::json((folder / planned.run.name).string()).dump());
  if (study.jobs > 1 && !sets_key(read_recipe(study.recipe, planned.overrides), "train.threads")) {
    const int64_t cores = std::max(1U, std::thread::hardware_concurrency());
    out.push_back(fmt::format("train.threads={}", std::max<int64_t>(1, cores / study.jobs)));
  }
  for (const std::string& plugin : loaded_plugins()) out.insert(out.end(), {"--plugin", plugin});
  out.insert(out.end(), {"--resume", "--json"});
  return out;
}

SweepResult run_sweep(const SweepStudy& study) {
  if (study.jobs < 1) fail_usage("--jobs {} must be at least 1", study.jobs);
  if (!(study.margin > 0)) fail_usage("--margin {} must be above 0", study.margin);
  std::vector<SweptKey> keys;
  for (const std::string& text : study.over) keys.push_back(parse_swept_key(text));
  const std::vector<PlannedRun> plan = plan_sweep(study.recipe, study.overrides, keys);
  const fs::path folder = folder_of(study);
  const StopSignals signals;
  make_folder(folder);
  const SweepLock lock(folder);
  SweepRecord sweep = merge_sweep(folder, study.recipe, keys, plan);
  write_sweep(folder, sweep);
  log_info("{} runs in {}, {} at a time", sweep.runs.size(), folder.string(), study.jobs);

  SweepRunner::Options options;
  options.folder = folder;
  options.jobs = study.jobs;
  options.margin = study.margin;
  options.arguments = [&](const SweepRun& run) {
    return sweep_arguments(study, planned_as(run.name, plan), folder);
  };
  options.on_change = [&] { write_tables(folder, read_outcome(folder, sweep)); };
  const std::vector<size_t> places = places_of(plan, sweep);
  SweepResult result;
  result.folder = folder;
  result.complete = SweepRunner(options, sweep).run(places);
  result.outcome = read_outcome(folder, sweep);
  result.all_ended =
      std::ranges::all_of(places, [&](size_t place) { return has_ended(sweep.runs[place].state); });
  write_tables(folder, result.outcome);
  write_page(folder, result.outcome);
  return result;
}

}  // namespace refract
