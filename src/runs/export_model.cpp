#include "runs/export_model.h"

#include <nlohmann/json.hpp>

#include "core/error.h"
#include "core/files.h"
#include "core/gguf/gguf_types.h"
#include "core/log.h"
#include "core/system/new_folder.h"
#include "data/source_paths.h"
#include "formats/checkpoint.h"
#include "formats/gguf/gguf_write.h"
#include "formats/hf_config.h"
#include "formats/model_path.h"
#include "runs/loaded_model.h"
#include "transforms/peft.h"

namespace refract {
namespace {

namespace fs = std::filesystem;

void say_what_is_lost(const LoadedModel& loaded, const char* where) {
  if (loaded.rules.empty()) return;
  log_info(
      "transformed layers are written as the dense weights they multiply by; what else they "
      "simulate (noise, levels) is not in {}",
      where);
}

std::string family_of(const LoadedModel& loaded) {
  const HfFamily family = carried_family(loaded.config.model, loaded.carried);
  if (family.name.empty()) {
    fail("'{}' can't be exported: transformers has no model that computes it. {}",
         loaded.folder.string(), family.reason);
  }
  return family.name;
}

void write_model(const LoadedModel& loaded, const std::string& family, const fs::path& out,
                 const ExportOptions& options) {
  say_what_is_lost(loaded, "a Hugging Face folder");
  SaveOptions save;
  save.dtype = options.dtype;
  save.format = family;
  save.merge = true;
  save.max_shard_bytes = options.max_shard_bytes;
  if (loaded.tokenizer) save.ids = ids_of(*loaded.tokenizer);
  save.carried = loaded.carried;
  save_model(*loaded.model, out, save);
  if (loaded.tokenizer) loaded.tokenizer->save(out);
}

void write_adapter(const LoadedModel& loaded, const fs::path& out, const ExportOptions& options) {
  if (loaded.started_from == "random") {
    fail(
        "'{}' started from random weights, so there is no model to put its adapters on; export the "
        "merged model (without --adapter)",
        loaded.folder.string());
  }
  // A folder or a run by its absolute path, so that peft finds it from anywhere; a Hub id as it is.
  std::string base = loaded.started_from;
  if (fs::exists(base)) base = fs::absolute(resolve_model_path(base)).string();
  save_adapter(*loaded.model, loaded.rules, out, {base, options.dtype});
}

// The config.json of the Hugging Face folder that the model would be exported to.
std::string config_text(const LoadedModel& loaded, const std::string& family) {
  const TokenIds ids = loaded.tokenizer ? ids_of(*loaded.tokenizer) : TokenIds();
  nlohmann::json config = config_to_json(loaded.config.model, family, "float32", ids);
  carry_config(config, loaded.carried, family);
  return config.dump();
}

// What a tokenizer saves, name to bytes. It is written beside `out` and removed again.
TokenizerFiles tokenizer_files(const Tokenizer& tokenizer, const fs::path& out) {
  const NewFolder scratch(out.string() + ".tokenizer", "the tokenizer");
  tokenizer.save(scratch.path());
  TokenizerFiles files;
  for (const fs::directory_entry& entry : fs::directory_iterator(scratch.path())) {
    if (entry.is_regular_file())
      files[entry.path().filename().string()] = read_file(entry.path(), "the tokenizer");
  }
  return files;
}

// Of a model's path: its last part.
std::string name_of(const std::string& specification) {
  const fs::path path = fs::path(specification).lexically_normal();
  const fs::path last = path.has_filename() ? path.filename() : path.parent_path().filename();
  return last.empty() ? "model" : last.string();
}

uint32_t gguf_type(const std::string& name) {
  if (name == "q8_0") return kGgufQ8_0;
  const at::ScalarType dtype = file_dtype(name, "q8_0");
  return dtype == at::kFloat ? kGgufF32 : dtype == at::kHalf ? kGgufF16 : kGgufBF16;
}

}  // namespace

at::ScalarType file_dtype(const std::string& name, const std::string& further) {
  if (name == "float32" || name == "f32") return at::kFloat;
  if (name == "bfloat16" || name == "bf16") return at::kBFloat16;
  if (name == "float16" || name == "f16") return at::kHalf;
  fail_usage("--dtype {} is not one of float32, bfloat16, float16{}", name,
             further.empty() ? "" : ", " + further);
}

ExportedModel export_model(const std::string& specification, const fs::path& out,
                           const ExportOptions& options) {
  NewFolder folder(out, options.adapter ? "the adapters" : "the model");
  const LoadedModel loaded = load_model(specification, {"train.device=cpu"});
  const std::string family = family_of(loaded);
  if (options.adapter) {
    write_adapter(loaded, folder.path(), options);
  } else {
    write_model(loaded, family, folder.path(), options);
  }
  folder.commit();
  return {loaded.folder, family};
}

ExportedModel export_gguf(const std::string& specification, const fs::path& out, uint32_t type) {
  if (fs::is_directory(out))
    fail_usage("'{}' is a folder; name the file to write, such as model.gguf", out.string());
  if (fs::exists(out)) fail_usage("'{}' is there already; name another file", out.string());
  const LoadedModel loaded = load_model(specification, {"train.device=cpu"});
  GgufSaveOptions save;
  save.type = type;
  save.family = family_of(loaded);
  save.name = name_of(specification);
  save.config = config_text(loaded, save.family);
  say_what_is_lost(loaded, "a GGUF file");
  if (out.has_parent_path()) fs::create_directories(out.parent_path());
  if (loaded.tokenizer) save.tokenizer = tokenizer_files(*loaded.tokenizer, out);
  const std::string note = save_gguf(*loaded.model, out, save);
  if (!note.empty()) log_warning("'{}': {}", out.string(), note);
  return {loaded.folder, save.family};
}

ExportedModel export_as(const ExportRequest& request) {
  if (request.format == "gguf") {
    if (request.adapter) fail_usage("--adapter writes peft's files, not --format gguf");
    if (!request.shard_size.empty())
      fail_usage("--max-shard-size is not for --format gguf, which is one file");
    return export_gguf(request.model, request.out, gguf_type(request.dtype));
  }
  if (request.format != "huggingface")
    fail_usage("--format {} is not one of huggingface, gguf", request.format);
  if (request.dtype == "q8_0") fail_usage("--dtype q8_0 needs --format gguf");
  ExportOptions options;
  options.adapter = request.adapter;
  options.dtype = file_dtype(request.dtype);
  if (!request.shard_size.empty())
    options.max_shard_bytes = static_cast<uint64_t>(parse_size(request.shard_size));
  return export_model(request.model, request.out, options);
}

}  // namespace refract
