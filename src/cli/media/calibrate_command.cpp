#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "core/error.h"
#include "core/log.h"
#include "core/system/command_line.h"
#include "studies/media/calibrate.h"

namespace refract {
namespace {

class CalibrateCommand : public Command {
 public:
  std::string name() const override { return "calibrate"; }
  std::string summary() const override {
    return "Set the ranges of a model's medium from data, without training";
  }
  std::string example() const override {
    return "refract calibrate runs/demo --kind optical --out runs/demo-calibrated";
  }
  void declare(CommandLine& line) override {
    line.positional(
        "model", study_.model,
        "a run, a checkpoint, a Hugging Face folder, a GGUF file, or a Hub id in the cache");
    line.positional("overrides", study_.overrides, "key=value settings");
    line.option("--out", study_.out, "the model folder to write", true);
    line.option("--kind", study_.medium.kind,
                "the medium of all linear layers and attentions: a kind, or {kind = ...}");
    line.option("--rules", study_.medium.rules, "or a TOML file with [[transform]] rules");
    line.option("--data", study_.data, "corpus; without it the model's own training split");
    line.option("--method", study_.search.method, "minmax, quantile, mse or kl");
    line.option("--quantiles", quantiles_, "the two quantiles of --method quantile: 0.001,0.999");
    line.option("--tokens", study_.tokens, "how many tokens to look at");
    line.flag("--json", json_, "print one JSON object");
  }
  int run() override;

 private:
  CalibrateStudy study_;
  std::string quantiles_;
  bool json_ = false;
};

int CalibrateCommand::run() {
  if (!quantiles_.empty()) {
    const std::vector<double> both = numbers_of("--quantiles", quantiles_);
    if (both.size() != 2)
      fail_usage("--quantiles takes two numbers, as 0.001,0.999; not '{}'", quantiles_);
    study_.search.low = both[0];
    study_.search.high = both[1];
  }
  const CalibrateResult result = calibrate(study_);
  if (json_) {
    fmt::print("{}\n", calibrate_json(study_, result).dump());
  } else {
    fmt::print("{}", calibrate_table(result).str());
    log_info("{} ranges by {} of {} tokens in {}", result.ranges.size(), study_.search.method,
             result.tokens, study_.out);
  }
  return 0;
}

}  // namespace

std::unique_ptr<Command> make_calibrate_command() { return std::make_unique<CalibrateCommand>(); }

}  // namespace refract
