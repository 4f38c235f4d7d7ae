#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "core/log.h"
#include "core/system/command_line.h"
#include "runs/export_model.h"

namespace refract {
namespace {

class ExportCommand : public Command {
 public:
  std::string name() const override { return "export"; }
  std::string summary() const override {
    return "Write a model as a Hugging Face folder that transformers opens, or as a GGUF file";
  }
  std::string example() const override { return "refract export runs/demo --out runs/demo-hf"; }
  void declare(CommandLine& line) override {
    line.positional("model", request_.model,
                    "a run, a checkpoint, a Hugging Face folder, a GGUF file, or a Hub id in the "
                    "cache");
    line.option("--out", request_.out, "the folder to write, or the GGUF file", true);
    line.option("--format", request_.format,
                "huggingface, or gguf: one file, of models like Llama");
    line.option("--dtype", request_.dtype, "float32, bfloat16, float16, or, of a GGUF file, q8_0");
    line.option("--max-shard-size", request_.shard_size,
                "a model larger than this is written as several files (5GB; not of GGUF)");
    line.flag(
        "--adapter", request_.adapter,
        "write only the run's LoRA adapters, in the format of peft, instead of the merged model");
    line.flag("--json", json_, "print one JSON object");
  }
  int run() override;

 private:
  ExportRequest request_;
  bool json_ = false;
};

int ExportCommand::run() {
  const ExportedModel exported = export_as(request_);
  const bool gguf = request_.format == "gguf";
  if (json_) {
    fmt::print("{}\n",
               nlohmann::json{{gguf ? "file" : "folder", request_.out}, {"family", exported.family}}
                   .dump());
  } else {
    const char* what = request_.adapter ? "peft's adapters of " : gguf ? "GGUF of " : "";
    log_info("{} as {}{} in {}", exported.from.string(), what, exported.family, request_.out);
  }
  return 0;
}

}  // namespace

std::unique_ptr<Command> make_export_command() { return std::make_unique<ExportCommand>(); }

}  // namespace refract
