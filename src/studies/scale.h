// The study of `refract scale`: how the loss of finished runs falls with compute, parameters and
// tokens.
#pragma once
#include <filesystem>
#include <string>
#include <vector>

#include "analysis/scaling.h"

namespace refract {

// Errors name the options of the command.
struct ScaleStudy {
  std::vector<std::string> runs;           // finished runs, sweeps, or folders of runs
  std::string metric = "validation_loss";  // or "mean_loss": the last value of it
  std::string law = "auto";                // "plain", "offset"; auto: offset from five runs on
  double confidence = 0.95;                // of the intervals
};

// What a run cost and what it reached.
struct ScaledRun {
  std::filesystem::path folder;
  std::string group;      // the kinds of its rules, or "dense"; then " self-guided" if it was that
  double flops = 0;       // of the whole training
  double parameters = 0;  // without embeddings
  double tokens = 0;
  double loss = 0;  // nats per token
};

// What a loss is plotted and fitted against.
struct ScalingAxis {
  const char* key;    // in JSON
  const char* label;  // for a person
  double ScaledRun::*value;
};
inline constexpr ScalingAxis kScalingAxes[] = {
    {"training_flops", "training FLOPs", &ScaledRun::flops},
    {"parameters", "parameters without embeddings", &ScaledRun::parameters},
    {"tokens", "training tokens", &ScaledRun::tokens}};

// A group's law over one of kScalingAxes.
struct ScalingFit {
  std::string group;
  const ScalingAxis* axis = nullptr;
  std::vector<ScalingPoint> points;
  PowerLaw law;
};

// How much steeper a group's law is than that of the dense runs, over one axis.
struct SlopeDifference {
  std::string group;
  const ScalingAxis* axis = nullptr;
  Estimate difference;
};

struct ScaleResult {
  std::vector<ScaledRun> runs;  // by group, then FLOPs
  std::vector<ScalingFit> fits;
  std::vector<std::string> left_out;  // groups with too few runs, and why
  std::vector<SlopeDifference> against_dense;
};

// Reads what a run's settings and metrics say. Fails for a folder without a run, and for a run that
// is not finished or has not measured the metric.
ScaledRun read_scaled_run(const std::filesystem::path& folder, const std::string& metric);

// A fit for each group and axis. What has too few runs for one is left out; where all are, that is
// an error.
ScaleResult fit_scaled_runs(std::vector<ScaledRun> runs, const std::string& law, double confidence);

// The runs that the paths stand for, each once: runs themselves, the finished ones of a sweep (what
// is left out is said), those in a folder.
std::vector<std::filesystem::path> scaled_folders(const std::vector<std::string>& paths);

// All of it: finds the runs, reads them, then fits.
ScaleResult scale_runs(const ScaleStudy& study);

}  // namespace refract
