#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "core/system/command_line.h"
#include "runs/loaded_model.h"

namespace refract {
namespace {

class EvalCommand : public Command {
 public:
  std::string name() const override { return "eval"; }
  std::string summary() const override {
    return "Loss, perplexity and accuracy of a model on a corpus";
  }
  std::string example() const override {
    return "refract eval runs/demo --data stories:1MB --batches 20";
  }
  void declare(CommandLine& line) override {
    line.positional(
        "model", model_,
        "a run, a checkpoint, a Hugging Face folder, a GGUF file, or a Hub id in the cache");
    line.positional("overrides", overrides_, "key=value settings");
    line.option("--data", request_.corpus,
                "corpus: a file, folder, glob, shards, or stories:SIZE; may be given several "
                "times; default: the validation split of a run");
    line.option("--batches", request_.batches,
                "\"all\", or a number of batches of train.batch windows from the corpus's start");
    line.option("--context", request_.context,
                "tokens of a window; 0: those of the run's training, or all that a model takes");
    line.flag("--json", json_, "print one JSON object");
  }
  int run() override;

 private:
  std::string model_;
  std::vector<std::string> overrides_;
  EvaluationRequest request_;
  bool json_ = false;
};

int EvalCommand::run() {
  const ModelEvaluation evaluation = evaluate_model(model_, overrides_, request_);
  const Evaluation& result = evaluation.result;
  if (json_) {
    const nlohmann::json out = {
        {"loss", result.loss},           {"perplexity", result.perplexity()},
        {"accuracy", result.accuracy},   {"tokens", result.tokens},
        {"context", evaluation.context}, {"corpus", evaluation.corpus}};
    fmt::print("{}\n", out.dump());
  } else {
    fmt::print(
        "corpus      {}\ncontext     {}\nloss        {:.4f} nats per token\nperplexity  "
        "{:.3f}\naccuracy    {:.2f}%\ntokens      {}\n",
        evaluation.corpus, evaluation.context, result.loss, result.perplexity(),
        100 * result.accuracy, result.tokens);
  }
  return 0;
}

}  // namespace

std::unique_ptr<Command> make_eval_command() { return std::make_unique<EvalCommand>(); }

}  // namespace refract
