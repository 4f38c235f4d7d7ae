#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "core/system/command_line.h"
#include "studies/media/spikes.h"
#include "studies/media/spikes_output.h"

namespace refract {
namespace {

class SpikesCommand : public Command {
 public:
  std::string name() const override { return "spikes"; }
  std::string summary() const override {
    return "A quantized model as a spiking one: loss, spikes and energy over time steps";
  }
  std::string example() const override {
    return "refract spikes runs/demo --kind spiking --tokens 1024";
  }
  void declare(CommandLine& line) override {
    line.positional(
        "model", study_.model,
        "a run, a checkpoint, a Hugging Face folder, a GGUF file, or a Hub id in the cache");
    line.positional("overrides", study_.overrides, "key=value settings");
    line.option("--kind", study_.medium.kind,
                "the kind of all linear layers and attentions: spiking, or {kind = \"spiking\", "
                "...}; without it the model's own rules");
    line.option("--rules", study_.medium.rules, "or a TOML file with [[transform]] rules");
    line.option("--data", study_.data, "corpus; without it the model's own validation split");
    line.option("--tokens", study_.tokens, "how many tokens to look at");
    line.option("--steps", study_.steps, "time steps at most; it ends where no neuron fires");
    line.option("--energy", study_.energy,
                "a TOML file with constants of energy, in place of the program's own");
    line.option("--out", study_.out, "folder for the files");
    line.flag("--json", json_, "print one JSON object");
  }
  int run() override;

 private:
  SpikesStudy study_;
  bool json_ = false;
};

int SpikesCommand::run() {
  const SpikesResult result = measure_spikes(study_);
  if (json_) {
    fmt::print("{}\n", spikes_json(result).dump());
    return 0;
  }
  fmt::print("{}\n{}\n{}\nspikes.json, spikes.csv and report.html are in {}\n",
             spikes_summary(result), spikes_table(result).str(), spikes_by_type(result).str(),
             study_.out);
  return 0;
}

}  // namespace

std::unique_ptr<Command> make_spikes_command() { return std::make_unique<SpikesCommand>(); }

}  // namespace refract
