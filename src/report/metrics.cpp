#include "report/metrics.h"

#include <chrono>
#include <cmath>
#include <nlohmann/json.hpp>
#include <string>

#include "core/error.h"
#include "core/files.h"
#include "core/log.h"
#include "core/untrusted.h"

namespace refract {
namespace {

namespace fs = std::filesystem;

// The step of a line, or nothing where it isn't one of ours (torn, or overwritten by a crash).
std::optional<int64_t> step_of(std::string_view line) {
  const std::optional<nlohmann::json> line_json = try_parse_json(line);
  if (!line_json) return std::nullopt;
  const nlohmann::json& parsed = *line_json;
  if (!parsed.is_object()) return std::nullopt;
  const auto step = parsed.find("step");
  if (step == parsed.end() || !step->is_number_integer()) return std::nullopt;
  return step->get<int64_t>();
}

// Leaves the whole lines up to `resume_step` in the file.
void repair(const fs::path& path, const std::string& what, int64_t resume_step) {
  const std::string text = read_file(path, what);
  std::string kept;
  int64_t broken = 0;
  for (std::string_view rest = text; !rest.empty();) {
    const size_t end = rest.find('\n');
    const std::string_view line = rest.substr(0, end);
    rest.remove_prefix(end == std::string_view::npos ? rest.size() : end + 1);
    if (line.empty()) continue;
    // A line without its newline is torn even where it parses ("step":1 of "step":100}).
    const auto step = end == std::string_view::npos ? std::nullopt : step_of(line);
    if (!step) {
      ++broken;
    } else if (*step <= resume_step) {
      kept.append(line).push_back('\n');
    }
  }
  if (broken > 0) {
    log_warning("{} unreadable line(s), left by an interrupted run, were dropped from '{}'", broken,
                path.string());
  }
  if (kept != text) write_file_atomically(path, kept);
}

}  // namespace

AppendFile open_step_log(const fs::path& path, const std::string& what, int64_t resume_step) {
  if (fs::exists(path)) repair(path, what, resume_step);
  return AppendFile(path, what);
}

MetricsLog::MetricsLog(const fs::path& folder, int64_t resume_step)
    : file_(open_step_log(folder / "metrics.jsonl", "the metrics", resume_step)),
      last_step_(resume_step) {}

void MetricsLog::write(int64_t step, MetricValues values) {
  if (step < last_step_) {
    fail("metrics of step {} come after those of step {}", step, last_step_);
  }
  const double time =
      std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch()).count();
  std::string line = fmt::format("{{\"step\":{},\"time\":{:.3f}", step, time);
  for (const auto& [name, value] : values) {
    line += ',' + nlohmann::json(name).dump() + ':';
    line += std::isfinite(value) ? fmt::format("{}", value) : "null";
  }
  line += "}\n";
  file_.append(line);
  last_step_ = step;
}

}  // namespace refract
