#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "cli/command_line.h"
#include "runs/loaded_model.h"

namespace refract {
namespace {

class EvalCommand : public Command {
 public:
  std::string name() const override { return "eval"; }
  std::string summary() const override {
    return "Loss, perplexity and accuracy of a model on a corpus";
  }
  std::string example() const override { return "refract eval runs/demo --data stories:1MB"; }
  void declare(CommandLine& line) override {
    line.positional("model", model_,
                    "a run, a checkpoint, a Hugging Face folder, or a Hub id in the cache");
    line.positional("overrides", overrides_, "key=value settings");
    line.option(
        "--data", data_,
        "corpus: a file, folder, glob, shards, or stories:SIZE; may be given several times");
    line.flag("--json", json_, "print one JSON object");
  }
  int run() override;

 private:
  std::string model_;
  std::vector<std::string> data_, overrides_;
  bool json_ = false;
};

int EvalCommand::run() {
  const Evaluation result = evaluate_model(model_, overrides_, data_);
  if (json_) {
    const nlohmann::json out = {{"loss", result.loss},
                                {"perplexity", result.perplexity()},
                                {"accuracy", result.accuracy},
                                {"tokens", result.tokens}};
    fmt::print("{}\n", out.dump());
  } else {
    fmt::print(
        "loss        {:.4f} nats per token\nperplexity  {:.3f}\naccuracy    {:.2f}%\ntokens      "
        "{}\n",
        result.loss, result.perplexity(), 100 * result.accuracy, result.tokens);
  }
  return 0;
}

}  // namespace

std::unique_ptr<Command> make_eval_command() { return std::make_unique<EvalCommand>(); }

}  // namespace refract
