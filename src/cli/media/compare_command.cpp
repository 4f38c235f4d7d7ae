#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "core/error.h"
#include "core/log.h"
#include "core/system/command_line.h"
#include "studies/compare/compare.h"
#include "studies/compare/compare_output.h"

namespace refract {
namespace {

class CompareCommand : public Command {
 public:
  std::string name() const override { return "compare"; }
  std::string summary() const override {
    return "One model in several media: loss before and after repair, energy, speed, culprits";
  }
  std::string example() const override {
    return "refract compare runs/demo --media docs/examples/optical-media.toml --data "
           "stories:200KB "
           "--tokens 4096";
  }
  void declare(CommandLine& line) override {
    CompareRequest& request = study_.request;
    line.positional(
        "model", request.model,
        "a run, a checkpoint, a Hugging Face folder, a GGUF file, or a Hub id in the cache");
    line.positional("overrides", request.overrides, "key=value settings of all rows");
    line.option("--media", study_.media, "a TOML file with [[row]] tables, see docs/real-models.md",
                true);
    line.option("--data", request.texts, "text to measure on; several are columns of their own");
    line.option("--tokens", request.tokens, "how many tokens of each text; 0: all");
    line.option("--out", out_, "folder for the rows and the table");
    line.option("--jobs", study_.jobs,
                "rows side by side; they share the CPU's cores and the GPUs");
    line.option("--row", study_.only, "measure this row alone");
    line.option("--energy", request.energy,
                "a TOML file with constants of energy, in place of the program's own");
    line.flag("--json", json_, "print the table as one JSON object");
  }
  int run() override;

 private:
  CompareStudy study_;
  std::string out_ = "comparison";
  bool json_ = false;
};

int CompareCommand::run() {
  study_.request.out = out_;
  const CompareResult result = compare(study_);
  if (json_) {
    fmt::print("{}\n", compare_json(result).dump());
  } else {
    fmt::print("{}", compare_table(result).str());
  }
  for (const std::string& failure : result.failures) log_warning("failed: {}", failure);
  if (!result.complete) {
    log_info("not complete; the same command goes on from here");
    return static_cast<int>(ExitCode::kFailed);
  }
  log_info("done: compare.json, compare.csv and report.html are in {}", out_);
  return static_cast<int>(ExitCode::kOk);
}

}  // namespace

std::unique_ptr<Command> make_compare_command() { return std::make_unique<CompareCommand>(); }

}  // namespace refract
