#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "core/error.h"
#include "core/log.h"
#include "core/system/command_line.h"
#include "report/report_file.h"

namespace refract {
namespace {

class ReportCommand : public Command {
 public:
  std::string name() const override { return "report"; }
  std::string summary() const override {
    return "Write one HTML file about a run, a sweep or several runs";
  }
  std::string example() const override { return "refract report runs/demo"; }
  void declare(CommandLine& line) override {
    line.positional("paths", paths_, "runs, sweeps, or folders of runs", true);
    line.option("--out", out_,
                "the file to write; default: report.html in the folder, or in the current folder "
                "for several runs");
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
  const ReportFile file = write_report(paths_, out_);
  if (json_) {
    nlohmann::json result = {{"report", file.path.string()}, {"runs", nlohmann::json::array()}};
    for (const auto& run : file.runs) result["runs"].push_back(run.string());
    fmt::print("{}\n", result.dump());
  }
  log_info("wrote {} ({} run{})", file.path.string(), file.runs.size(),
           file.runs.size() == 1 ? "" : "s");
  return static_cast<int>(ExitCode::kOk);
}

}  // namespace

std::unique_ptr<Command> make_report_command() { return std::make_unique<ReportCommand>(); }

}  // namespace refract
