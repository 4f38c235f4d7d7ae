#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "core/system/command_line.h"
#include "studies/media/sensitivity.h"
#include "studies/media/sensitivity_output.h"

namespace refract {
namespace {

class SensitivityCommand : public Command {
 public:
  std::string name() const override { return "sensitivity"; }
  std::string summary() const override {
    return "Which layers, types and roles of a model a medium ruins";
  }
  std::string example() const override {
    return "refract sensitivity runs/demo --kind optical --by types,layers";
  }
  void declare(CommandLine& line) override {
    line.positional(
        "model", study_.model,
        "a run, a checkpoint, a Hugging Face folder, a GGUF file, or a Hub id in the cache");
    line.positional("overrides", study_.overrides, "key=value settings");
    line.option("--kind", study_.medium.kind,
                "the medium of all linear layers and attentions: a kind, or {kind = ...}");
    line.option("--rules", study_.medium.rules, "or a TOML file with [[transform]] rules");
    line.option("--data", study_.data, "corpus; without it the model's own validation split");
    line.option("--by", by_, "what to measure: types, layers, modules, roles, with commas");
    line.option("--tokens", study_.tokens, "how many tokens to look at");
    line.option("--keep-digital", keep_,
                "propose rules that leave at most this share of the multiplications outside the "
                "medium: 2%, or several with commas");
    line.flag("--uniform", study_.uniform,
              "measure as many multiplications chosen without looking beside a proposal: spread, "
              "the first, the last, three random draws");
    line.option("--out", study_.out, "folder for the files");
    line.flag("--json", json_, "print one JSON object");
  }
  int run() override;

 private:
  SensitivityStudy study_;
  std::string by_ = "types,layers", keep_;
  bool json_ = false;
};

int SensitivityCommand::run() {
  study_.by = words_of(by_);
  if (!keep_.empty()) {
    for (const std::string& share : words_of(keep_))
      study_.keep_digital.push_back(share_of("--keep-digital", share));
  }
  const SensitivityResult result = measure_sensitivity(study_);
  if (json_) {
    fmt::print("{}\n", sensitivity_json(result).dump());
  } else {
    fmt::print("{}", sensitivity_text(result, study_.out));
  }
  return 0;
}

}  // namespace

std::unique_ptr<Command> make_sensitivity_command() {
  return std::make_unique<SensitivityCommand>();
}

}  // namespace refract
