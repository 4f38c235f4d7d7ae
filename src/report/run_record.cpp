#include "report/run_record.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>
#include <nlohmann/json.hpp>
#include <set>
#include <sstream>

#include "core/error.h"
#include "core/files.h"
#include "core/toml.h"
#include "core/untrusted.h"

namespace refract {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();
constexpr double kLargestStep = 1e15;  // a double counts so far without a gap

// Calls `use` for each whole line that is a JSON object of a step; a run that is being written may
// end in a torn one.
void for_each_object(const fs::path& path, const std::function<void(const json&)>& use) {
  if (!fs::exists(path)) return;
  std::istringstream lines(read_file(path));
  for (std::string line; std::getline(lines, line);) {
    const std::optional<json> parsed = try_parse_json(line);
    if (!parsed) continue;
    const auto step = parsed->find("step");
    if (step == parsed->end() || !step->is_number()) continue;
    if (step->get<double>() >= 0 && step->get<double>() <= kLargestStep) use(*parsed);
  }
}

void flatten(const json& value, const std::string& key, std::map<std::string, std::string>& out) {
  const bool tables = value.is_array() && !value.empty() && value.front().is_object();
  if (!value.is_object() && !tables) {
    out[key] = to_toml_value(value);
    return;
  }
  for (const auto& [name, entry] : value.items()) {
    flatten(entry, key.empty() ? name : key + "." + name, out);
  }
}

}  // namespace

double Curve::last() const { return values.empty() ? kNaN : values.back(); }

double Curve::lowest() const {
  double best = kNaN;
  for (const double value : values) {
    if (std::isfinite(value) && !(best <= value)) best = value;
  }
  return best;
}

const Curve& RunRecord::curve(std::string_view metric) const {
  static const Curve none;
  const auto found = metrics.find(std::string(metric));
  return found == metrics.end() ? none : found->second;
}

int64_t RunRecord::last_step() const {
  double last = -1;
  for (const auto& [name, curve] : metrics) {
    if (!curve.steps.empty()) last = std::max(last, curve.steps.back());
  }
  return static_cast<int64_t>(last);
}

bool is_run(const fs::path& folder) {
  return fs::exists(folder / "metrics.jsonl") || fs::exists(folder / "config.toml");
}

std::map<std::string, Curve> read_metrics(const fs::path& folder) {
  std::map<std::string, Curve> metrics;
  for_each_object(folder / "metrics.jsonl", [&](const json& line) {
    for (const auto& [name, value] : line.items()) {
      if (name == "step" || !(value.is_number() || value.is_null())) continue;
      Curve& curve = metrics[name];
      curve.steps.push_back(line["step"].get<double>());
      curve.values.push_back(value.is_null() ? kNaN : value.get<double>());
    }
  });
  return metrics;
}

std::vector<Sample> read_samples(const fs::path& folder) {
  std::vector<Sample> samples;
  std::set<std::pair<int64_t, std::string>> seen;  // a resumed run draws some of them again
  for_each_object(folder / kSamplesFile, [&](const json& line) {
    const auto text = line.find("text");
    if (text == line.end() || !text->is_string()) return;
    Sample sample{line["step"].get<int64_t>(), text->get<std::string>()};
    if (seen.emplace(sample.step, sample.text).second) samples.push_back(std::move(sample));
  });
  return samples;
}

RunRecord read_run(const fs::path& folder) {
  if (!is_run(folder)) {
    fail_usage("'{}' is not a run: it has neither metrics.jsonl nor config.toml", folder.string());
  }
  RunRecord run;
  run.folder = folder;
  const fs::path absolute = fs::absolute(folder).lexically_normal();
  run.name = (absolute.has_filename() ? absolute : absolute.parent_path()).filename().string();
  if (fs::exists(folder / "config.toml")) {
    flatten(read_toml(folder / "config.toml"), "", run.settings);
  }
  run.metrics = read_metrics(folder);
  run.samples = read_samples(folder);
  run.transforms = read_transform_rows(folder / "transforms.toml");
  run.ranges = read_ranges(folder);
  run.starts = read_starts(folder);
  return run;
}

}  // namespace refract
