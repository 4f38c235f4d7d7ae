#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "core/log.h"
#include "core/system/command_line.h"
#include "studies/universe/universe.h"
#include "studies/universe/universe_output.h"

namespace refract {
namespace {

class UniverseCommand : public Command {
 public:
  std::string name() const override { return "universe"; }
  std::string summary() const override {
    return "Bring several models into one common order of units, and measure their mean";
  }
  std::string example() const override {
    return "refract universe runs/demo/checkpoints/step-00000100 runs/demo --out runs/universe";
  }
  void declare(CommandLine& line) override {
    line.positional("models", words_, "the models, then key=value settings for the evaluation",
                    true);
    line.option("--out", study_.out, "folder for the models in one frame, their mean and the files",
                true);
    line.option("--residual", study_.residual,
                "the residual stream: permutation, or none to leave it as it is");
    line.option("--data", study_.data, "another corpus; may be given several times");
    line.option("--split", study_.split, "of the first run's own corpus: train or val");
    line.option("--batches", study_.batches,
                "\"all\", or a number of batches of train.batch windows from the corpus's start");
    line.option("--alphas", study_.alphas, "points on each path, both ends included");
    line.flag("--json", json_, "print one JSON object");
  }
  int run() override;

 private:
  std::vector<std::string> words_;
  UniverseStudy study_;
  bool json_ = false;
};

int UniverseCommand::run() {
  for (const std::string& word : words_)
    (word.find('=') == std::string::npos ? study_.models : study_.overrides).push_back(word);
  const UniverseResult result = match_and_save(study_);
  if (json_) {
    fmt::print("{}\n", universe_json(result).dump());
    return 0;
  }
  fmt::print("{}", universe_text(result));
  log_info("wrote {}", study_.out);
  return 0;
}

}  // namespace

std::unique_ptr<Command> make_universe_command() { return std::make_unique<UniverseCommand>(); }

}  // namespace refract
