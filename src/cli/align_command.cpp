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
    return "Bring a model's units, heads and channels to another model's, without changing what it "
           "computes";
  }
  std::string example() const override {
    return "refract align runs/demo/checkpoints/step-00000100 runs/demo --out runs/aligned";
  }
  void declare(CommandLine& line) override {
    line.positional("A", study_.a, "the model that sets the order");
    line.positional("B", study_.b, "the model that is aligned: one of the same architecture");
    line.positional("overrides", study_.overrides, "key=value settings");
    line.option("--out", study_.out, "folder for the aligned copy of B", true);
    line.option("--out-a", study_.out_a,
                "folder for the first model where its weights change too (default: --out with -a)");
    AlignWords& words = study_.words;
    line.option("--by", words.by, "match by weights, or by activations on the training tokens");
    line.option("--residual", words.residual,
                "the residual stream: none, permutation, orthogonal (a tied model gets a head of "
                "its own), or auto: orthogonal with --learn, and where the model's form stays");
    line.option("--heads", words.heads,
                "attention heads: whole, orthogonal (also rotated inside), or auto, as --residual");
    line.option("--learn", words.learn,
                "then train the maps for so many steps on the loss between the two models");
    line.flag("--both", words.both, "with --learn: train maps of the first model too");
    line.option("--learn-rate", words.rate, "step size of --learn at its beginning");
    line.option("--data", study_.data,
                "corpus for --by activations and --learn; may be given several times");
    line.flag("--json", json_, "print one JSON object");
  }
  int run() override;

 private:
  AlignStudy study_;
  bool json_ = false;
};

int AlignCommand::run() {
  const AlignedFolders aligned = align_and_save(study_);
  const AlignReport& report = aligned.report;
  if (json_) {
    nlohmann::json out = {{"folder", study_.out},
                          {"a", aligned.a},
                          {"by", study_.words.by},
                          {"residual", report.residual},
                          {"heads", report.heads},
                          {"sweeps", report.sweeps},
                          {"distance_before", report.distance_before},
                          {"distance_after", report.distance_after}};
    if (study_.words.learn > 0) {
      out["learned"] = {{"steps", study_.words.learn},
                        {"both", study_.words.both},
                        {"loss_half_way_before", report.learned.before},
                        {"loss_half_way_after", report.learned.after}};
    }
    fmt::print("{}\n", out.dump());
  } else {
    log_info("wrote {}; compare the two with: refract interpolate {} {}", study_.out, aligned.a,
             study_.out);
  }
  return 0;
}

}  // namespace

std::unique_ptr<Command> make_align_command() { return std::make_unique<AlignCommand>(); }

}  // namespace refract
