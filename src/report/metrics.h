// metrics.jsonl of a run folder: one JSON object per line,
//     {"step":100,"time":1700000000.123,"loss":2.5,"learning_rate":0.0006}
// `step` counts optimizer steps, `time` is in seconds since 1970 (UTC). A value that is not finite
// stands as null, since JSON has no number for it; a reader thus knows that it was measured and was
// not finite. Numbers are written with the fewest digits that read back as the same double.
#pragma once
#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>
#include <utility>

#include "report/append_file.h"

namespace refract {

using MetricValues = std::span<const std::pair<std::string_view, double>>;

// Opens a file of such lines (each has a "step") at its end. A run that resumes gives the step of
// the checkpoint it starts from: later lines, which it will write again, and lines that a killed
// process left torn are dropped, in one atomic rewrite, so that each step stands once however often
// a run is resumed. For this to hold a trainer writes a step's lines before it saves that step's
// checkpoint. MetricsLog::kFresh keeps nothing. `what` names the file in errors ("the metrics").
AppendFile open_step_log(const std::filesystem::path& path, const std::string& what,
                         int64_t resume_step);

class MetricsLog {
 public:
  // A run that starts: nothing of an older file is kept.
  static constexpr int64_t kFresh = -1;

  // Opens `folder`/metrics.jsonl, see open_step_log.
  explicit MetricsLog(const std::filesystem::path& folder, int64_t resume_step = kFresh);

  // Appends one line; it is with the system when the call returns. Steps must not decrease, and
  // "step" and "time" are taken. Throws Error when the disk is full; the file keeps whole lines.
  void write(int64_t step, MetricValues values);

 private:
  AppendFile file_;
  int64_t last_step_;
};

}  // namespace refract
