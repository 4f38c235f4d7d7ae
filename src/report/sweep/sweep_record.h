// sweep.json of a sweep's folder: which runs it has and how far each is. The runs are the folders
// beside it, named as they are here.
#pragma once
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace refract {

enum class SweepState { kWaiting, kRunning, kStopped, kFinished, kDiverged, kFailed };

struct SweepRun {
  std::string name;                 // of its folder: "lr=1e-3,rank=4"
  std::vector<std::string> values;  // one per key, as given on the command line
  std::string settings;  // all that the recipe and the overrides set, as JSON, but for the folder
  SweepState state = SweepState::kWaiting;
  std::string reason;  // of a run that diverged or failed
};

struct SweepRecord {
  std::string recipe;
  std::vector<std::string> keys;  // that are swept
  std::vector<SweepRun> runs;
};

std::string_view state_name(SweepState state);
// Whether there is nothing left to run: it has finished, or diverged.
bool has_ended(SweepState state);

// Nothing where the folder holds no sweep; Error where its sweep.json can't be understood.
std::optional<SweepRecord> read_sweep(const std::filesystem::path& folder);
void write_sweep(const std::filesystem::path& folder, const SweepRecord& sweep);

}  // namespace refract
