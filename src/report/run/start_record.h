// starts.jsonl of a run's folder: a line for each time the run was started or resumed.
#pragma once
#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

namespace refract {

struct StartRecord {
  double time = 0;  // seconds since 1970
  std::string version, command, device, precision;
  int64_t from_step = 0;     // 0, or that of the checkpoint it was resumed from
  int64_t steps = 0;         // of the whole run
  int64_t guided_steps = 0;  // its first steps that guides may take part in
  int64_t parameters = 0, trainable_parameters = 0;
  double training_flops = 0;  // of the whole run
};

// Appends a line. A run that starts from nothing drops the lines that were there.
void write_start(const std::filesystem::path& run_folder, const StartRecord& start);

// Oldest first; lines that are not of this form are left out.
std::vector<StartRecord> read_starts(const std::filesystem::path& run_folder);

}  // namespace refract
