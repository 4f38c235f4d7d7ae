// The study of `refract sweep`: a recipe trained once for each combination of some settings.
#pragma once
#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "report/sweep/sweep_report.h"
#include "studies/sweep/sweep_plan.h"

namespace refract {

// Errors name the options of the command.
struct SweepStudy {
  std::string recipe;
  std::vector<std::string> overrides;  // of all runs
  std::vector<std::string> over;       // "key=value,value,...", see parse_swept_key()
  std::string out;                     // the sweep's folder; empty: run.dir and "-sweep"
  int64_t jobs = 1;                    // runs side by side
  double margin = 0.5;                 // nats, see divergence()
};

struct SweepResult {
  std::filesystem::path folder;
  SweepOutcome outcome;   // of all runs that the folder holds
  bool complete = true;   // no signal ended it early
  bool all_ended = true;  // each of its runs has finished or diverged
};

// Runs what has not ended yet, and writes table.csv, table.json and report.html into the folder. A
// diverged run is an outcome; one that failed or was stopped is run again by the same call.
SweepResult run_sweep(const SweepStudy& study);

// The arguments of `refract` for a run of the sweep. It has its share of the CPU's cores where
// several run side by side and the recipe does not say how many it takes.
std::vector<std::string> sweep_arguments(const SweepStudy& study, const PlannedRun& planned,
                                         const std::filesystem::path& folder);

}  // namespace refract
