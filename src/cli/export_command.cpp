#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "core/error.h"
#include "core/gguf/gguf_types.h"
#include "core/log.h"
#include "core/system/command_line.h"
#include "data/source_paths.h"
#include "runs/export_model.h"

namespace refract {
namespace {

uint32_t gguf_type(const std::string& name) {
  if (name == "q8_0") return kGgufQ8_0;
  const at::ScalarType dtype = file_dtype(name, "q8_0");
  return dtype == at::kFloat ? kGgufF32 : dtype == at::kHalf ? kGgufF16 : kGgufBF16;
}

class ExportCommand : public Command {
 public:
  std::string name() const override { return "export"; }
  std::string summary() const override {
    return "Write a model as a Hugging Face folder that transformers opens, or as a GGUF file";
  }
  std::string example() const override { return "refract export runs/demo --out runs/demo-hf"; }
  void declare(CommandLine& line) override {
    line.positional("model", model_,
                    "a run, a checkpoint, a Hugging Face folder, a GGUF file, or a Hub id in the "
                    "cache");
    line.option("--out", out_, "the folder to write, or the GGUF file", true);
    line.option("--format", format_, "huggingface, or gguf: one file, of models like Llama");
    line.option("--dtype", dtype_, "float32, bfloat16, float16, or, of a GGUF file, q8_0");
    line.option("--max-shard-size", shard_size_,
                "a model larger than this is written as several files (5GB; not of GGUF)");
    line.flag(
        "--adapter", options_.adapter,
        "write only the run's LoRA adapters, in the format of peft, instead of the merged model");
    line.flag("--json", json_, "print one JSON object");
  }
  int run() override;

 private:
  ExportedModel write_gguf_file() const;
  ExportedModel write_folder();

  std::string model_, out_, format_ = "huggingface", dtype_ = "float32", shard_size_;
  ExportOptions options_;
  bool json_ = false;
};

ExportedModel ExportCommand::write_gguf_file() const {
  if (options_.adapter) fail_usage("--adapter writes peft's files, not --format gguf");
  if (!shard_size_.empty())
    fail_usage("--max-shard-size is not for --format gguf, which is one file");
  return export_gguf(model_, out_, gguf_type(dtype_));
}

ExportedModel ExportCommand::write_folder() {
  if (dtype_ == "q8_0") fail_usage("--dtype q8_0 needs --format gguf");
  options_.dtype = file_dtype(dtype_);
  if (!shard_size_.empty())
    options_.max_shard_bytes = static_cast<uint64_t>(parse_size(shard_size_));
  return export_model(model_, out_, options_);
}

int ExportCommand::run() {
  if (format_ != "huggingface" && format_ != "gguf")
    fail_usage("--format {} is not one of huggingface, gguf", format_);
  const bool gguf = format_ == "gguf";
  const ExportedModel exported = gguf ? write_gguf_file() : write_folder();
  if (json_) {
    fmt::print(
        "{}\n",
        nlohmann::json{{gguf ? "file" : "folder", out_}, {"family", exported.family}}.dump());
  } else {
    log_info("{} as {}{} in {}", exported.from.string(),
             options_.adapter ? "peft's adapters of "
             : gguf           ? "GGUF of "
                              : "",
             exported.family, out_);
  }
  return 0;
}

}  // namespace

std::unique_ptr<Command> make_export_command() { return std::make_unique<ExportCommand>(); }

}  // namespace refract
