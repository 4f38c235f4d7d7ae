#include "report/report_file.h"

#include <algorithm>
#include <optional>

#include "core/error.h"
#include "report/run_report.h"
#include "report/sweep/sweep_page.h"

namespace refract {
namespace {

namespace fs = std::filesystem;

fs::path default_file(const std::vector<std::string>& paths) {
  if (paths.size() != 1) return "report.html";
  if (fs::exists(fs::path(paths[0]) / "connectivity.json")) {
    fail_usage(
        "'{}' is an analysis, whose report.html refract connectivity writes (and renews when "
        "it is run again); for a page about its runs give --out FILE",
        paths[0]);
  }
  return fs::path(paths[0]) / "report.html";
}

}  // namespace

std::vector<fs::path> runs_in(const fs::path& path) {
  if (!fs::is_directory(path)) fail_usage("'{}' is not a folder of a run", path.string());
  if (is_run(path)) return {path};
  std::vector<fs::path> found;
  for (const auto& entry : fs::directory_iterator(path)) {
    if (entry.is_directory() && is_run(entry.path())) found.push_back(entry.path());
  }
  if (found.empty()) {
    fail_usage("'{}' holds no run: neither it nor a folder in it has metrics.jsonl or config.toml",
               path.string());
  }
  std::sort(found.begin(), found.end());
  return found;
}

ReportFile write_report(const std::vector<std::string>& paths, const fs::path& out) {
  ReportFile file{out.empty() ? default_file(paths) : out, {}};
  std::vector<RunRecord> runs;
  for (const std::string& path : paths) {
    for (const fs::path& folder : runs_in(path)) {
      runs.push_back(read_run(folder));
      file.runs.push_back(folder);
    }
  }
  make_names_unique(runs);
  std::optional<SweepRecord> sweep;
  if (paths.size() == 1) sweep = read_sweep(paths[0]);
  const Page page = sweep ? sweep_page(paths[0], read_outcome(paths[0], *sweep)) : run_page(runs);
  page.write(file.path);
  return file;
}

}  // namespace refract
