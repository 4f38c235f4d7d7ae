#include <nlohmann/json.hpp>

#include "cli/commands.h"
#include "core/error.h"
#include "core/log.h"
#include "data/source_paths.h"
#include "formats/checkpoint.h"
#include "formats/hf_config.h"
#include "formats/model_path.h"
#include "runs/session.h"
#include "transforms/peft.h"

namespace refract {
namespace {

namespace fs = std::filesystem;

at::ScalarType parse_dtype(const std::string& name) {
  if (name == "float32") return at::kFloat;
  if (name == "bfloat16") return at::kBFloat16;
  if (name == "float16") return at::kHalf;
  fail_usage("--dtype {} is not one of float32, bfloat16, float16", name);
}

class ExportCommand : public Command {
 public:
  std::string name() const override { return "export"; }
  std::string summary() const override {
    return "Write a model as a Hugging Face folder that transformers opens";
  }
  std::string example() const override {
    return "refract export runs/demo --out demo-hf   (after make demo)";
  }
  void declare(CommandLine& line) override {
    line.positional("model", model_,
                    "a run, a checkpoint, a Hugging Face folder, or a Hub id in the cache");
    line.option("--out", out_, "the folder to write", true);
    line.option("--dtype", dtype_, "float32, bfloat16 or float16");
    line.option("--max-shard-size", shard_size_, "larger models are cut into several files");
    line.flag("--adapter", adapter_,
              "write the run's LoRA adapters alone, in the format of peft, not the merged model");
    line.flag("--json", json_, "print one JSON object");
  }
  int run() override;

 private:
  void write_model(const LoadedModel& loaded, const std::string& family) const;
  void write_adapter(const LoadedModel& loaded) const;
  std::string model_, out_, dtype_ = "float32", shard_size_ = "5GB";
  bool adapter_ = false, json_ = false;
};

void ExportCommand::write_model(const LoadedModel& loaded, const std::string& family) const {
  SaveOptions options;
  options.dtype = parse_dtype(dtype_);
  options.format = family;
  options.merge = true;
  if (!loaded.rules.empty()) {
    log_info(
        "transformed layers are written as the dense weights they multiply by; what else they "
        "simulate (noise, levels) is not in a Hugging Face folder");
  }
  options.max_shard_bytes = static_cast<uint64_t>(parse_size(shard_size_));
  if (loaded.tokenizer) options.ids.bos = options.ids.eos = loaded.tokenizer->end_of_text();
  save_model(*loaded.model, out_, options);
  if (loaded.tokenizer) loaded.tokenizer->save(out_);
}

void ExportCommand::write_adapter(const LoadedModel& loaded) const {
  if (loaded.started_from == "random") {
    fail(
        "'{}' started from random weights, so there is no model to put its adapters on; export the "
        "merged model (without --adapter)",
        loaded.folder.string());
  }
  // A folder or a run by its absolute path, so that peft finds it from anywhere; a Hub id as it is.
  std::string base = loaded.started_from;
  if (fs::exists(base)) base = fs::absolute(resolve_model_path(base)).string();
  save_adapter(*loaded.model, loaded.rules, out_, {base, parse_dtype(dtype_)});
}

int ExportCommand::run() {
  parse_dtype(dtype_);
  for (const char* file : {"config.json", kAdapterConfig}) {
    if (fs::exists(fs::path(out_) / file))
      fail_usage("'{}' already holds a model; choose another --out", out_);
  }
  const LoadedModel loaded = load_model(model_, {"train.device=cpu"});
  const HfFamily family = hf_family(loaded.config.model);
  if (family.name.empty()) {
    fail("'{}' can't be exported: transformers has no model that computes it. {}",
         loaded.folder.string(), family.reason);
  }
  if (adapter_) {
    write_adapter(loaded);
  } else {
    write_model(loaded, family.name);
  }
  if (json_) {
    fmt::print("{}\n", nlohmann::json{{"folder", out_}, {"family", family.name}}.dump());
  } else {
    log_info("{} as {}{} in {}", loaded.folder.string(), adapter_ ? "peft's adapters of " : "",
             family.name, out_);
  }
  return 0;
}

}  // namespace

std::unique_ptr<Command> make_export_command() { return std::make_unique<ExportCommand>(); }

}  // namespace refract
