#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "core/system/command_line.h"
#include "studies/media/chips.h"
#include "studies/media/chips_output.h"

namespace refract {
namespace {

class ChipsCommand : public Command {
 public:
  std::string name() const override { return "chips"; }
  std::string summary() const override {
    return "A model on memory devices as they age, over many chips";
  }
  std::string example() const override {
    return "refract chips runs/demo --kind \"{kind = 'analog', preset = 'pcm'}\" --chips 3";
  }
  void declare(CommandLine& line) override {
    line.positional("model", study_.model, "a run, a checkpoint, a model folder, or a GGUF file");
    line.positional("overrides", study_.overrides, "key=value settings");
    line.option("--kind", study_.medium.kind, "the medium of all linear layers: {kind = ...}");
    line.option("--rules", study_.medium.rules, "or a TOML file with [[transform]] rules");
    line.option("--data", study_.data, "corpus; without it the model's own validation split");
    line.option("--chips", study_.chips, "how many chips");
    line.option("--first", study_.first, "number of the first");
    line.option("--times", times_, "since programming, with commas: s, min, h, d, month, y");
    line.option("--tokens", study_.tokens, "how many tokens to look at");
    line.option("--out", study_.out, "folder for chips.json, chips.csv and report.html");
    line.flag("--json", json_, "print one JSON object");
  }
  int run() override {
    study_.times = words_of(times_);
    const ChipsResult result = measure_chips(study_);
    fmt::print("{}\n", json_ ? chips_json(result).dump() : chips_table(result).str());
    return 0;
  }

 private:
  ChipsStudy study_;
  std::string times_ = "1s,1h,1d,1month,1y";
  bool json_ = false;
};

}  // namespace

std::unique_ptr<Command> make_chips_command() { return std::make_unique<ChipsCommand>(); }

}  // namespace refract
