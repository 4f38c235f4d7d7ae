#include <cstdio>
#include <nlohmann/json.hpp>

#include "cli/commands.h"
#include "cli/session.h"
#include "core/error.h"
#include "text/utf8.h"
#include "train/generate.h"

namespace refract {
namespace {

// Length of `text` without a character that is cut off at its end.
size_t complete_utf8(std::string_view text) {
  for (size_t back = 1; back <= 3 && back <= text.size(); ++back) {
    const auto byte = static_cast<unsigned char>(text[text.size() - back]);
    if (byte >= 0xC0) return utf8_length(byte) > back ? text.size() - back : text.size();
    if (byte < 0x80) break;
  }
  return text.size();
}

class GenerateCommand : public Command {
 public:
  std::string name() const override { return "generate"; }
  std::string summary() const override { return "Sample text from a model"; }
  std::string example() const override {
    return "refract generate runs/demo --prompt \"Once\" --max-tokens 200   (after make demo)";
  }
  void declare(CommandLine& line) override {
    line.positional("model", model_,
                    "a run, a checkpoint, a Hugging Face folder, or a Hub id in the cache");
    line.positional("overrides", overrides_, "key=value settings");
    line.option("--prompt", prompt_, "text to continue");
    line.option("--max-tokens", options_.max_tokens, "tokens to make");
    line.option("--temperature", options_.temperature, "0: always the likeliest token");
    line.option("--top-k", options_.top_k, "draw from the k likeliest tokens; 0: all");
    line.option("--top-p", options_.top_p,
                "draw from the likeliest tokens that hold this probability; 1: all");
    line.option("--seed", seed_, "the same seed gives the same text");
    line.flag("--json", json_, "print one JSON object");
  }
  int run() override;

 private:
  void check() const;
  std::string model_, prompt_;
  std::vector<std::string> overrides_;
  SamplingOptions options_;
  int64_t seed_ = 1;
  bool json_ = false;
};

void GenerateCommand::check() const {
  if (options_.temperature < 0)
    fail_usage("--temperature {} must not be negative", options_.temperature);
  if (options_.top_p <= 0 || options_.top_p > 1)
    fail_usage("--top-p {} must be in (0, 1]", options_.top_p);
  if (options_.top_k < 0) fail_usage("--top-k {} must not be negative", options_.top_k);
  if (options_.max_tokens < 1) fail_usage("--max-tokens {} must be positive", options_.max_tokens);
}

int GenerateCommand::run() {
  check();
  LoadedModel loaded = load_model(model_, overrides_);
  if (!loaded.tokenizer)
    fail_usage("'{}' has no tokenizer; give one with data.tokenizer=FOLDER",
               loaded.folder.string());
  const Tokenizer& tokenizer = *loaded.tokenizer;
  options_.seed = static_cast<uint64_t>(seed_);
  options_.stop = tokenizer.end_of_text();
  const std::vector<TokenId> prompt = prompt_tokens(tokenizer, prompt_);
  std::vector<TokenId> made;
  size_t printed = 0;
  if (!json_) fmt::print("{}", prompt_);
  generate(*loaded.model, prompt, options_, [&](TokenId token) {
    made.push_back(token);
    if (json_) return;
    const std::string text = tokenizer.decode(made);
    const size_t whole =
        complete_utf8(text);  // a token may end inside a character; its rest comes with the next
    if (whole <= printed) return;
    std::fwrite(text.data() + printed, 1, whole - printed, stdout);
    std::fflush(stdout);
    printed = whole;
  });
  if (json_) {
    fmt::print(
        "{}\n",
        nlohmann::json{{"prompt", prompt_}, {"text", tokenizer.decode(made)}, {"tokens", made}}
            .dump(-1, ' ', false, nlohmann::json::error_handler_t::replace));
  } else {
    fmt::print("\n");
  }
  return 0;
}

}  // namespace

std::unique_ptr<Command> make_generate_command() { return std::make_unique<GenerateCommand>(); }

}  // namespace refract
