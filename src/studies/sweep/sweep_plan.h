// From the command line of a sweep to its runs.
#pragma once
#include <filesystem>
#include <string>
#include <vector>

#include "report/sweep/sweep_record.h"

namespace refract {

// "optimizer.lr=1e-4,1e-3" -> its key and values. Commas in brackets, braces and quotes belong to a
// value.
struct SweptKey {
  std::string key;
  std::vector<std::string> values;
};
SweptKey parse_swept_key(const std::string& text);

struct PlannedRun {
  std::vector<std::string> overrides;  // all: those of every run, then the swept ones
  SweepRun run = {};
};

// The runs of the cartesian product, the last key fastest. Each is checked as far as that goes
// without its data: keys, types, limits, the model's shape, the transforms' rules. Errors (usage)
// name the run.
std::vector<PlannedRun> plan_sweep(const std::string& recipe,
                                   const std::vector<std::string>& overrides,
                                   const std::vector<SweptKey>& keys);

// The sweep that the folder already has, with the planned runs added; runs of both keep their
// state. Errors (usage): the folder's sweep is over other keys, or its run of the same name has
// other settings.
SweepRecord merge_sweep(const std::filesystem::path& folder, const std::string& recipe,
                        const std::vector<SweptKey>& keys, const std::vector<PlannedRun>& planned);

}  // namespace refract
