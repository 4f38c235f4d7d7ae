#include <fmt/format.h>

#include <cstdio>
#include <nlohmann/json.hpp>

#include "core/system/command_line.h"
#include "studies/scale.h"
#include "studies/scale_output.h"

namespace refract {
namespace {

class ScaleCommand : public Command {
 public:
  std::string name() const override { return "scale"; }
  std::string summary() const override {
    return "Fit power laws of the loss of finished runs in FLOPs, parameters and tokens";
  }
  std::string example() const override {
    return "refract sweep recipes/demo.toml --over model.hidden_size=32,64,96 train.steps=200 "
           "--out runs/sizes\n  refract scale runs/sizes";
  }
  void declare(CommandLine& line) override {
    line.positional("runs", study_.runs, "finished runs, sweeps, or folders of runs", true);
    line.option("--metric", study_.metric, "validation_loss or mean_loss; its last value counts");
    line.option("--law", study_.law,
                "plain (A x^-alpha), offset (E + A x^-alpha), or auto: with an offset if a group "
                "has five or more runs");
    line.option("--confidence", study_.confidence, "confidence of the intervals");
    line.option("--out", out_, "folder for report.html");
    line.flag("--json", json_, "print one JSON object");
  }
  int run() override;

 private:
  ScaleStudy study_;
  std::string out_;
  bool json_ = false;
};

int ScaleCommand::run() {
  const ScaleResult result = scale_runs(study_);
  if (!out_.empty()) {
    fmt::print(stderr, "written to {}\n", write_scale_page(study_, result, out_).string());
  }
  fmt::print("{}", json_ ? scale_json(study_, result).dump() + "\n" : scale_text(study_, result));
  return 0;
}

}  // namespace

std::unique_ptr<Command> make_scale_command() { return std::make_unique<ScaleCommand>(); }

}  // namespace refract
