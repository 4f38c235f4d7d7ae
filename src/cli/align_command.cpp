#include <nlohmann/json.hpp>

#include "cli/commands.h"
#include "core/error.h"
#include "core/files.h"
#include "core/log.h"
#include "data/dataset.h"
#include "formats/checkpoint.h"
#include "runs/same_model.h"
#include "studies/alignment.h"
#include "studies/choices.h"

namespace refract {
namespace {

namespace fs = std::filesystem;

class AlignCommand : public Command {
 public:
  std::string name() const override { return "align"; }
  std::string summary() const override {
    return "Bring a model's units, heads and channels into another's order; its function stays";
  }
  std::string example() const override {
    return "refract align runs/demo/checkpoints/step-00001500 runs/demo --out runs/aligned   "
           "(after "
           "make demo)";
  }
  void declare(CommandLine& line) override {
    line.positional("A", a_, "the model that sets the order");
    line.positional("B", b_, "the model that is aligned: one of the same architecture");
    line.positional("overrides", overrides_, "key=value settings");
    line.option("--out", out_, "folder for the aligned copy of B", true);
    line.option("--by", by_, "match by weights, or by activations on the training tokens");
    line.option("--residual", residual_,
                "the residual stream: none, permutation, orthogonal, or auto: orthogonal where the "
                "model allows it");
    line.option("--data", data_, "corpus for --by activations; may be given several times");
    line.flag("--json", json_, "print one JSON object");
  }
  int run() override;

 private:
  std::shared_ptr<TokenStream> tokens(LoadedModel& a) const;

  std::string a_, b_, out_, by_ = "weights", residual_ = "auto";
  std::vector<std::string> overrides_, data_;
  bool json_ = false;
};

std::shared_ptr<TokenStream> AlignCommand::tokens(LoadedModel& a) const {
  if (by_ != "activations") return nullptr;
  if (data_.empty()) return open_dataset(a.config.data, a.tokenizer).train;
  a.config.data.path = data_;
  return open_corpus(a.config.data, a.tokenizer);
}

int AlignCommand::run() {
  require_choice("--by", by_, {"weights", "activations"});
  require_choice("--residual", residual_, {"auto", "none", "permutation", "orthogonal"});
  if (fs::exists(fs::path(out_) / "config.json"))
    fail_usage("'{}' already holds a model; choose another --out", out_);
  std::vector<std::string> overrides = overrides_;
  overrides.emplace_back("train.device=cpu");
  LoadedModel a = load_model(a_, overrides), b = load_model(b_, overrides);
  if (const std::string difference = first_difference(a, b); !difference.empty())
    fail_usage("'{}' can't be aligned with '{}': {}", b_, a_, difference);
  const AlignReport report = align_models(a, b, by_, residual_, tokens(a));
  save_model(*b.model, out_);
  if (b.tokenizer) b.tokenizer->save(out_);
  if (fs::exists(b.folder / "config.toml")) {
    write_file_atomically(fs::path(out_) / "config.toml",
                          read_file(b.folder / "config.toml", "the settings"));
  }
  if (json_) {
    const nlohmann::json out = {{"folder", out_},
                                {"by", by_},
                                {"residual", report.residual},
                                {"sweeps", report.sweeps},
                                {"distance_before", report.distance_before},
                                {"distance_after", report.distance_after}};
    fmt::print("{}\n", out.dump());
  } else {
    log_info("written: {}; see what it brought: refract interpolate {} {}", out_, a_, out_);
  }
  return 0;
}

}  // namespace

std::unique_ptr<Command> make_align_command() { return std::make_unique<AlignCommand>(); }

}  // namespace refract
