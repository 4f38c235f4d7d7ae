#include <cstdio>
#include <nlohmann/json.hpp>

#include "cli/commands.h"
#include "core/error.h"
#include "decode/generate.h"
#include "runs/session.h"
#include "text/utf8.h"

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
    line.option("--prompt", prompts_,
                "text to continue; may be given several times, all are continued together");
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
  void stream(Decoder& model, const Tokenizer& tokenizer);
  void batch(Decoder& model, const Tokenizer& tokenizer);
  std::string model_;
  std::vector<std::string> prompts_, overrides_;
  SamplingOptions options_;
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

// One prompt, printed while it grows.
void GenerateCommand::stream(Decoder& model, const Tokenizer& tokenizer) {
  std::vector<TokenId> made;
  size_t printed = 0;
  fmt::print("{}", prompts_[0]);
  decode_.on_token = [&](int64_t, TokenId token) {
    made.push_back(token);
    const std::string text = tokenizer.decode(made);
    const size_t whole =
        complete_utf8(text);  // a token may end inside a character; its rest comes with the next
    if (whole <= printed) return;
    std::fwrite(text.data() + printed, 1, whole - printed, stdout);
    std::fflush(stdout);
    printed = whole;
  };
  generate_batch(model, {prompt_tokens(tokenizer, prompts_[0])}, options_, decode_);
  fmt::print("\n");
}

// All prompts together, printed when they are done.
void GenerateCommand::batch(Decoder& model, const Tokenizer& tokenizer) {
  std::vector<std::vector<TokenId>> tokens;
  for (const std::string& prompt : prompts_) tokens.push_back(prompt_tokens(tokenizer, prompt));
  const auto made = generate_batch(model, tokens, options_, decode_);
  nlohmann::json samples = nlohmann::json::array();
  for (size_t i = 0; i < made.size(); ++i) {
    const std::string text = tokenizer.decode(made[i]);
    samples.push_back({{"prompt", prompts_[i]}, {"text", text}, {"tokens", made[i]}});
    if (!json_) fmt::print("{}{}{}\n", i > 0 ? "\n" : "", prompts_[i], text);
  }
  if (!json_) return;
  const nlohmann::json out =
      samples.size() == 1 ? samples[0] : nlohmann::json{{"samples", samples}};
  fmt::print("{}\n", out.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace));
}

int GenerateCommand::run() {
  check();
  if (prompts_.empty()) prompts_ = {""};
  LoadedModel loaded = load_model(model_, overrides_);
  if (!loaded.tokenizer)
    fail_usage("'{}' has no tokenizer; give one with data.tokenizer=FOLDER",
               loaded.folder.string());
  options_.seed = static_cast<uint64_t>(seed_);
  options_.stop = loaded.tokenizer->end_of_text();
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
