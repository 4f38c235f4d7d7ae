#include <fmt/format.h>

#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <optional>

#include "cli/commands.h"
#include "core/error.h"
#include "core/log.h"
#include "report/run_report.h"
#include "report/sweep/sweep_page.h"

namespace refract {
namespace {

namespace fs = std::filesystem;

// The runs that a path stands for: itself, or those in its folders.
std::vector<fs::path> runs_in(const fs::path& path) {
  if (!fs::is_directory(path)) fail_usage("'{}' is no folder of a run", path.string());
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

class ReportCommand : public Command {
 public:
  std::string name() const override { return "report"; }
  std::string summary() const override {
    return "Write one HTML file about a run, a sweep or several runs";
  }
  std::string example() const override {
    return "refract report runs/demo      (after make demo; then open runs/demo/report.html)";
  }
  void declare(CommandLine& line) override {
    line.positional("paths", paths_, "runs, sweeps, or folders of runs", true);
    line.option("--out", out_,
                "the file to write; default: report.html in the folder, or here for several");
    line.flag("--json", json_, "print the outcome as one JSON object");
  }
  bool uses_models() const override { return false; }
  int run() override;

 private:
  std::vector<std::string> paths_;
  std::string out_;
  bool json_ = false;
};

int ReportCommand::run() {
  const bool one = paths_.size() == 1;
  fs::path out = out_;
  if (out.empty() && one && fs::exists(fs::path(paths_[0]) / "connectivity.json")) {
    fail_usage(
        "'{}' is an analysis, whose report.html refract connectivity writes (and renews when "
        "it is run again); for a page about its runs give --out FILE",
        paths_[0]);
  }
  if (out.empty()) out = one ? fs::path(paths_[0]) / "report.html" : "report.html";
  std::vector<RunRecord> runs;
  for (const std::string& path : paths_) {
    for (const fs::path& folder : runs_in(path)) runs.push_back(read_run(folder));
  }
  make_names_unique(runs);
  const std::optional<SweepRecord> sweep = one ? read_sweep(paths_[0]) : std::nullopt;
  const Page page = sweep ? sweep_page(paths_[0], read_outcome(paths_[0], *sweep)) : run_page(runs);
  page.write(out);
  if (json_) {
    nlohmann::json result = {{"report", out.string()}, {"runs", nlohmann::json::array()}};
    for (const RunRecord& run : runs) result["runs"].push_back(run.folder.string());
    fmt::print("{}\n", result.dump());
  }
  log_info("wrote {} ({} run{})", out.string(), runs.size(), runs.size() == 1 ? "" : "s");
  return static_cast<int>(ExitCode::kOk);
}

}  // namespace

std::unique_ptr<Command> make_report_command() { return std::make_unique<ReportCommand>(); }

}  // namespace refract
