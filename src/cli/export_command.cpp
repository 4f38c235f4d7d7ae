#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "cli/command_line.h"
#include "core/error.h"
#include "core/log.h"
#include "data/source_paths.h"
#include "runs/export_model.h"

namespace refract {
namespace {

class ExportCommand : public Command {
 public:
  std::string name() const override { return "export"; }
  std::string summary() const override {
    return "Write a model as a Hugging Face folder that transformers opens";
  }
  std::string example() const override { return "refract export runs/demo --out runs/demo-hf"; }
  void declare(CommandLine& line) override {
    line.positional("model", model_,
                    "a run, a checkpoint, a Hugging Face folder, or a Hub id in the cache");
    line.option("--out", out_, "the folder to write", true);
    line.option("--dtype", dtype_, "float32, bfloat16 or float16");
    line.option("--max-shard-size", shard_size_,
                "a model larger than this is written as several files");
    line.flag(
        "--adapter", options_.adapter,
        "write only the run's LoRA adapters, in the format of peft, instead of the merged model");
    line.flag("--json", json_, "print one JSON object");
  }
  int run() override;

 private:
  std::string model_, out_, dtype_ = "float32", shard_size_ = "5GB";
  ExportOptions options_;
  bool json_ = false;
};

int ExportCommand::run() {
  options_.dtype = file_dtype(dtype_);
  options_.max_shard_bytes = static_cast<uint64_t>(parse_size(shard_size_));
  const ExportedModel exported = export_model(model_, out_, options_);
  if (json_) {
    fmt::print("{}\n", nlohmann::json{{"folder", out_}, {"family", exported.family}}.dump());
  } else {
    log_info("{} as {}{} in {}", exported.from.string(),
             options_.adapter ? "peft's adapters of " : "", exported.family, out_);
  }
  return 0;
}

}  // namespace

std::unique_ptr<Command> make_export_command() { return std::make_unique<ExportCommand>(); }

}  // namespace refract
