#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "core/error.h"
#include "core/log.h"
#include "core/system/command_line.h"
#include "runs/export_model.h"
#include "studies/merge/merge.h"

namespace refract {
namespace {

class MergeCommand : public Command {
 public:
  std::string name() const override { return "merge"; }
  std::string summary() const override {
    return "Make one model of several: mean, SLERP, task vectors, TIES, DARE, a greedy soup";
  }
  std::string example() const override {
    return "refract merge runs/demo/checkpoints/step-00000100 runs/demo --method slerp --t 0.7 "
           "--out runs/merged";
  }
  void declare(CommandLine& line) override;
  int run() override;

 private:
  MergeStudy study_;
  std::vector<std::string> words_;
  std::string dtype_, weights_;
  bool json_ = false;
};

void MergeCommand::declare(CommandLine& line) {
  line.positional("models", words_, "the models, then key=value settings for the evaluation", true);
  line.option("--out", study_.out, "the model folder to write", true);
  line.option("--method", study_.settings.method,
              "linear, slerp, task_arithmetic, ties, dare, dare_ties or greedy_soup");
  line.option("--base", study_.base, "the model that the others were fine-tuned from");
  line.option("--weights", weights_, "a number for each model: 0.3,0.7; without it all are equal");
  line.option("--t", study_.settings.t, "slerp: 0 is the first model, 1 the second");
  line.option("--lambda", study_.settings.lambda,
              "factor of the sum of the differences from --base");
  line.option("--density", study_.settings.density,
              "ties, dare: the part of each difference that is kept");
  line.option("--seed", study_.settings.seed, "dare: of what is dropped");
  line.option("--points", study_.points,
              "the loss at so many values of the method's coefficient (weight of the second model, "
              "t or lambda), from 0 on");
  line.flag("--best", study_.best, "write the one of --points with the least loss");
  line.option("--data", study_.evaluation.corpus,
              "corpus of --points and greedy_soup; without it the validation split of the run");
  line.option("--batches", study_.evaluation.batches,
              "\"all\", or a number of batches of train.batch windows from the corpus's start");
  line.option("--context", study_.evaluation.context, "tokens of a window; 0: the model's own");
  line.option("--dtype", dtype_, "float32, bfloat16 or float16; without it as in the first model");
  line.flag("--json", json_, "print one JSON object");
}

int MergeCommand::run() {
  for (const std::string& word : words_)
    (word.find('=') == std::string::npos ? study_.models : study_.overrides).push_back(word);
  if (!dtype_.empty()) study_.dtype = file_dtype(dtype_);
  if (!weights_.empty()) study_.settings.weights = numbers_of("--weights", weights_);
  const MergeResult result = merge_models(study_);
  if (json_) {
    fmt::print("{}\n", merge_json(study_, result).dump());
  } else {
    fmt::print("{}", merge_text(study_, result));
    log_info("wrote {}", study_.out);
  }
  return 0;
}

}  // namespace

std::unique_ptr<Command> make_merge_command() { return std::make_unique<MergeCommand>(); }

}  // namespace refract
