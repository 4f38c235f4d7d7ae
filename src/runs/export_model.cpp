#include "runs/export_model.h"

#include "core/error.h"
#include "core/log.h"
#include "core/system/new_folder.h"
#include "formats/checkpoint.h"
#include "formats/hf_config.h"
#include "formats/model_path.h"
#include "runs/loaded_model.h"
#include "transforms/peft.h"

namespace refract {
namespace {

namespace fs = std::filesystem;

void write_model(const LoadedModel& loaded, const std::string& family, const fs::path& out,
                 const ExportOptions& options) {
  if (!loaded.rules.empty()) {
    log_info(
        "transformed layers are written as the dense weights they multiply by; what else they "
        "simulate (noise, levels) is not in a Hugging Face folder");
  }
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

}  // namespace

at::ScalarType file_dtype(const std::string& name) {
  if (name == "float32") return at::kFloat;
  if (name == "bfloat16") return at::kBFloat16;
  if (name == "float16") return at::kHalf;
  fail_usage("--dtype {} is not one of float32, bfloat16, float16", name);
}

ExportedModel export_model(const std::string& specification, const fs::path& out,
                           const ExportOptions& options) {
  NewFolder folder(out, options.adapter ? "the adapters" : "the model");
  const LoadedModel loaded = load_model(specification, {"train.device=cpu"});
  const HfFamily family = carried_family(loaded.config.model, loaded.carried);
  if (family.name.empty()) {
    fail("'{}' can't be exported: transformers has no model that computes it. {}",
         loaded.folder.string(), family.reason);
  }
  if (options.adapter) {
    write_adapter(loaded, folder.path(), options);
  } else {
    write_model(loaded, family.name, folder.path(), options);
  }
  folder.commit();
  return {loaded.folder, family.name};
}

}  // namespace refract
