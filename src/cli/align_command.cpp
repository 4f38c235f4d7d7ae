#include <nlohmann/json.hpp>

#include "core/log.h"
#include "core/system/command_line.h"
#include "studies/alignment.h"

namespace refract {
namespace {

class AlignCommand : public Command {
 public:
  std::string name() const override { return "align"; }
  std::string summary() const override {
    return "Bring a model's units, heads and channels into another model's order, without changing "
           "what it computes";
  }
  std::string example() const override {
    return "refract align runs/demo/checkpoints/step-00000100 runs/demo --out runs/aligned";
  }
  void declare(CommandLine& line) override {
    line.positional("A", study_.a, "the model that sets the order");
    line.positional("B", study_.b, "the model that is aligned: one of the same architecture");
    line.positional("overrides", study_.overrides, "key=value settings");
    line.option("--out", study_.out, "folder for the aligned copy of B", true);
    line.option("--by", study_.by, "match by weights, or by activations on the training tokens");
    line.option("--residual", study_.residual,
                "the residual stream: none, permutation, orthogonal, or auto: orthogonal where the "
                "model allows it");
    line.option("--data", study_.data, "corpus for --by activations; may be given several times");
    line.flag("--json", json_, "print one JSON object");
  }
  int run() override;

 private:
  AlignStudy study_;
  bool json_ = false;
};

int AlignCommand::run() {
  const AlignReport report = align_and_save(study_);
  if (json_) {
    const nlohmann::json out = {{"folder", study_.out},
                                {"by", study_.by},
                                {"residual", report.residual},
                                {"sweeps", report.sweeps},
                                {"distance_before", report.distance_before},
                                {"distance_after", report.distance_after}};
    fmt::print("{}\n", out.dump());
  } else {
    log_info("wrote {}; compare the two with: refract interpolate {} {}", study_.out, study_.a,
             study_.out);
  }
  return 0;
}

}  // namespace

std::unique_ptr<Command> make_align_command() { return std::make_unique<AlignCommand>(); }

}  // namespace refract
