#include "report/sweep/sweep_record.h"

#include <array>
#include <nlohmann/json.hpp>

#include "core/error.h"
#include "core/files.h"
#include "core/untrusted.h"

namespace refract {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

constexpr std::array<std::string_view, 6> kStates = {"waiting",  "running",  "stopped",
                                                     "finished", "diverged", "failed"};

SweepState state_of(const std::string& name) {
  for (size_t i = 0; i < kStates.size(); ++i) {
    if (kStates.at(i) == name) return static_cast<SweepState>(i);
  }
  fail("'{}' is not a state of a run", name);
}

SweepRun run_of(const json& entry) {
  SweepRun run;
  run.name = entry.at("name").get<std::string>();
  run.values = entry.at("values").get<std::vector<std::string>>();
  run.settings = entry.at("settings").dump();
  run.state = state_of(entry.at("state").get<std::string>());
  run.reason = entry.value("reason", "");
  return run;
}

}  // namespace

std::string_view state_name(SweepState state) { return kStates.at(static_cast<size_t>(state)); }

bool has_ended(SweepState state) {
  return state == SweepState::kFinished || state == SweepState::kDiverged;
}

std::optional<SweepRecord> read_sweep(const fs::path& folder) {
  const fs::path path = folder / "sweep.json";
  if (!fs::exists(path)) return std::nullopt;
  try {
    const json tree = parse_json(read_file(path, "the sweep"), "the file");
    SweepRecord sweep;
    sweep.recipe = tree.at("recipe").get<std::string>();
    sweep.keys = tree.at("keys").get<std::vector<std::string>>();
    for (const json& entry : tree.at("runs")) sweep.runs.push_back(run_of(entry));
    for (const SweepRun& run : sweep.runs) {
      if (run.values.size() != sweep.keys.size()) fail("run '{}' lacks a value", run.name);
    }
    return sweep;
  } catch (const std::exception& error) {
    fail("'{}' is not a sweep of this program: {}", path.string(), shown(error.what()));
  }
}

void write_sweep(const fs::path& folder, const SweepRecord& sweep) {
  json tree = {{"recipe", sweep.recipe}, {"keys", sweep.keys}, {"runs", json::array()}};
  for (const SweepRun& run : sweep.runs) {
    tree["runs"].push_back({{"name", run.name},
                            {"values", run.values},
                            {"state", state_name(run.state)},
                            {"reason", run.reason},
                            {"settings", json::parse(run.settings)}});
  }
  write_file_atomically(folder / "sweep.json", tree.dump(1) + "\n");
}

}  // namespace refract
