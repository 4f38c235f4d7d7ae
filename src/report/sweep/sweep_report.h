// The outcome of a sweep as one table in three forms.
#pragma once
#include <filesystem>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "report/run_record.h"
#include "report/sweep/sweep_record.h"
#include "report/table.h"

namespace refract {

// A run of the sweep with what its folder says.
struct SweepRow {
  SweepRun run;
  RunRecord record = {};  // without content where the run has not begun
  double training_loss = 0, validation_loss = 0, lowest_validation_loss = 0;  // NaN: not there
  // What the rows are sorted by: the validation loss, or the training loss without validation data.
  double final_loss() const;
};

struct SweepOutcome {
  SweepRecord sweep;
  std::vector<SweepRow> rows;  // finished ones by their final loss, then those that are not
};

SweepOutcome read_outcome(const std::filesystem::path& folder, const SweepRecord& sweep);

// The last part of each key ("lr" of "optimizer.lr") where that says which one is meant, else the
// whole key.
std::vector<std::string> short_keys(const std::vector<std::string>& keys);

Table outcome_rows(const SweepOutcome& outcome);
std::string outcome_table(const SweepOutcome& outcome);    // for a terminal
std::string outcome_csv(const SweepOutcome& outcome);      // RFC 4180, a header line first
nlohmann::json outcome_json(const SweepOutcome& outcome);  // a list of objects

}  // namespace refract
