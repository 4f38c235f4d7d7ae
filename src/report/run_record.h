// What a run's folder says about the run: settings, metrics, samples, transforms, ranges. Reads
// whatever is there, of a run that is still going or was killed as well.
#pragma once
#include <cstdint>
#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "report/run/start_record.h"
#include "report/run/transform_rows.h"
#include "report/run_ranges.h"

namespace refract {

// A metric over steps, in the order of the file. NaN: it was measured and was not finite.
struct Curve {
  std::vector<double> steps, values;

  double last() const;    // NaN where there is none
  double lowest() const;  // of the finite values; NaN where there is none
};

struct Sample {
  int64_t step = 0;
  std::string text;
};

struct RunRecord {
  std::filesystem::path folder;
  std::string name;                             // unique among the runs of a report
  std::map<std::string, std::string> settings;  // dotted key -> its value as TOML
  std::map<std::string, Curve> metrics;
  std::vector<Sample> samples;
  std::vector<TransformRow> transforms;
  std::vector<RangeTrack> ranges;
  std::vector<StartRecord> starts;

  // An empty curve where the run has no such metric.
  const Curve& curve(std::string_view metric) const;
  // The last step that has a metric; -1: none.
  int64_t last_step() const;
};

// Whether the folder holds a run: it has its metrics or its settings.
bool is_run(const std::filesystem::path& folder);
// Error (usage) where the folder holds no run.
RunRecord read_run(const std::filesystem::path& folder);
// The metrics of a run alone, and the time of every line as "time"; empty where there are none yet.
std::map<std::string, Curve> read_metrics(const std::filesystem::path& folder);

// The file that RunRecord::samples comes from: one JSON object {"step":,"text":} per line.
inline constexpr const char* kSamplesFile = "samples.jsonl";
// Each once: a resumed run draws some of them again.
std::vector<Sample> read_samples(const std::filesystem::path& folder);

}  // namespace refract
