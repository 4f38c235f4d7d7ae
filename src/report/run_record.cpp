#include "report/run_record.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>
#include <nlohmann/json.hpp>
#include <regex>
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

// Calls `use` for each whole line that is a JSON object; a run that is being written may end in a
// torn one.
void for_each_object(const fs::path& path, const std::function<void(const json&)>& use) {
  if (!fs::exists(path)) return;
  std::istringstream lines(read_file(path));
  for (std::string line; std::getline(lines, line);) {
    const std::optional<json> parsed = try_parse_json(line);
    if (!parsed) continue;
    const json& object = *parsed;
    if (object.is_object() && object.contains("step") && object["step"].is_number()) use(object);
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

// The comments that transforms_toml() of the transforms writes before each rule:
//     # 24 modules, 393216 -> 12288 parameters
//     # left alone: 4 modules, 65536 -> 65536 parameters
std::vector<TransformRow> read_transforms(const fs::path& path) {
  static const std::regex comment(R"(# (left alone: )?(\d+) modules?, (\d+) -> (\d+) parameters)");
  if (!fs::exists(path)) return {};
  const std::string text = read_file(path, "the transforms");
  const json rules = parse_toml(text, path.string()).value("transform", json::array());
  std::vector<TransformRow> rows;
  size_t rule = 0;
  std::istringstream lines(text);
  for (std::string line; std::getline(lines, line);) {
    std::smatch match;
    if (!std::regex_match(line, match, comment)) continue;
    TransformRow row;
    row.modules = std::stoll(match[2]);
    row.dense_parameters = std::stoll(match[3]);
    row.parameters = std::stoll(match[4]);
    if (!match[1].matched && rule < rules.size()) {
      row.match = rules[rule].value("match", "");
      row.kind = rules[rule].value("kind", "");
      ++rule;
    }
    rows.push_back(row);
  }
  return rows;
}

std::vector<Sample> read_samples(const fs::path& path) {
  std::vector<Sample> samples;
  std::set<std::pair<int64_t, std::string>> seen;  // a resumed run draws some of them again
  for_each_object(path, [&](const json& line) {
    Sample sample{line["step"].get<int64_t>(), line.value("text", "")};
    if (seen.emplace(sample.step, sample.text).second) samples.push_back(std::move(sample));
  });
  return samples;
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
  run.samples = read_samples(folder / kSamplesFile);
  run.transforms = read_transforms(folder / "transforms.toml");
  run.ranges = read_ranges(folder);
  run.starts = read_starts(folder);
  return run;
}

}  // namespace refract
