#include <fmt/format.h>

#include <cstdio>
#include <nlohmann/json.hpp>
#include <string_view>

#include "core/error.h"
#include "core/system/command_line.h"
#include "decode/continue_texts.h"
#include "formats/carried.h"
#include "formats/start_token.h"
#include "runs/loaded_model.h"

namespace refract {
namespace {

class GenerateCommand : public Command {
 public:
  std::string name() const override { return "generate"; }
  std::string summary() const override { return "Sample text from a model"; }
  std::string example() const override {
    return "refract generate runs/demo --prompt \"Once\" --max-tokens 200";
  }
  void declare(CommandLine& line) override {
    line.positional(
        "model", model_,
        "a run, a checkpoint, a Hugging Face folder, a GGUF file, or a Hub id in the cache");
    line.positional("overrides", overrides_, "key=value settings");
    line.option("--prompt", prompts_,
                "text to continue; may be given several times, all are continued together");
    line.option("--max-tokens", options_.max_tokens, "number of tokens to generate");
    line.option("--temperature", options_.temperature, "0: always the most likely token");
    line.option("--top-k", options_.top_k, "draw from the k most likely tokens; 0: from all");
    line.option(
        "--top-p", options_.top_p,
        "draw from the most likely tokens that together have this probability; 1: from all");
    line.option("--seed", seed_, "the same seed gives the same text");
    line.flag("--json", json_, "print one JSON object");
  }
  int run() override;

 private:
  void check() const;
  void stream(Decoder& model, const Tokenizer& tokenizer);
  void batch(Decoder& model, const Tokenizer& tokenizer);
  std::string model_;
  std::vector<std::string> prompts_, overrides_;
  SamplingOptions options_;
  TokenId start_ = 0;  // of an empty prompt
  int64_t seed_ = 1;
  bool json_ = false;
  DecodeOptions decode_;
};

void GenerateCommand::check() const {
  if (options_.temperature < 0)
    fail_usage("--temperature {} must not be negative", options_.temperature);
  if (options_.top_p <= 0 || options_.top_p > 1)
    fail_usage("--top-p {} must be in (0, 1]", options_.top_p);
  if (options_.top_k < 0) fail_usage("--top-k {} must not be negative", options_.top_k);
  if (options_.max_tokens < 1) fail_usage("--max-tokens {} must be positive", options_.max_tokens);
}

void GenerateCommand::stream(Decoder& model, const Tokenizer& tokenizer) {
  fmt::print("{}", prompts_[0]);
  continue_text(model, tokenizer, prompts_[0], start_, options_, decode_,
                [](std::string_view more) {
                  std::fwrite(more.data(), 1, more.size(), stdout);
                  std::fflush(stdout);
                });
  fmt::print("\n");
}

void GenerateCommand::batch(Decoder& model, const Tokenizer& tokenizer) {
  const auto made = continue_texts(model, tokenizer, prompts_, start_, options_, decode_);
  if (json_) {
    const nlohmann::json out = samples_json(prompts_, made);
    fmt::print("{}\n", out.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace));
    return;
  }
  for (size_t i = 0; i < made.size(); ++i)
    fmt::print("{}{}{}\n", i > 0 ? "\n" : "", prompts_[i], made[i].text);
}

int GenerateCommand::run() {
  check();
  if (prompts_.empty()) prompts_ = {""};
  const LoadedModel loaded = load_model(model_, overrides_);
  if (!loaded.tokenizer)
    fail_usage("'{}' has no tokenizer; give one with data.tokenizer=FOLDER",
               loaded.folder.string());
  options_.seed = static_cast<uint64_t>(seed_);
  start_ = start_token(loaded.carried, *loaded.tokenizer);
  options_.stop = stop_tokens(loaded.carried, *loaded.tokenizer);
  decode_.cuda_graph = loaded.config.train.cuda_graph != "off";
  if (prompts_.size() == 1 && !json_) {
    stream(*loaded.model, *loaded.tokenizer);
  } else {
    batch(*loaded.model, *loaded.tokenizer);
  }
  return 0;
}

}  // namespace

std::unique_ptr<Command> make_generate_command() { return std::make_unique<GenerateCommand>(); }

}  // namespace refract
