#include "runs/inspect/inspect.h"

#include <algorithm>
#include <filesystem>

#include "analysis/energy/energy_constants.h"
#include "analysis/model_flops.h"
#include "formats/model_path.h"
#include "runs/device.h"
#include "runs/model_folder.h"
#include "runs/open_recipe.h"
#include "runs/plan.h"

namespace refract {
namespace {

namespace fs = std::filesystem;

RunConfig resolved_folder_config(const fs::path& folder, const std::vector<std::string>& overrides,
                                 const std::string& where) {
  RunConfig config = folder_config(folder, overrides, where);
  config.data.context = std::min(config.data.context, config.model.longest());
  resolve(config.model, 0, config.data.context);
  return config;
}

// The meta device tells which layers have a merged matrix without allocating any.
double premerge_bytes(const RunConfig& config, const fs::path& folder, const std::string& where) {
  const at::Device device = open_device(config);
  const PremergeSettings settings = premerge_settings(config, folder, device);
  const TransformedModel model =
      build_model(config.model, config.transform, where, false, &settings);
  if (model.premerged.empty()) return 0;
  model.decoder->allocate(at::Device(at::kMeta), compute_dtype(config));
  int64_t bytes = 0;
  for (const PremergeGroup& group : model.premerged) bytes += group.layer->bytes();
  return static_cast<double>(bytes);
}

}  // namespace

Inspection inspect_source(const std::string& source, const std::vector<std::string>& overrides,
                          int64_t processes, const std::string& constants) {
  fs::path folder;  // of a model; empty for a recipe
  Inspection found;
  if (source.ends_with(".toml")) {
    found.config = open_resolved_recipe(source, overrides).config;
  } else {
    folder = resolve_model_path(source);
    found.config = resolved_folder_config(folder, overrides, source);
  }
  found.model = plan_model(found.config, source);
  const Decoder& model = *found.model.decoder;
  const DecoderShape shape = shape_of(model, found.config.data.context);
  found.matrices = matrix_parameters(shape);
  found.forward = forward_flops_per_token(shape);
  found.training = training_flops_per_token(shape);
  found.guides = guide_flops_per_token(shape);
  found.cost = cost_of_run(found.config, model, resolve_steps(found.config, model.arena().count()));
  found.processes = processes;
  found.memory = plan_memory(found.config, processes);
  found.premerge_bytes = premerge_bytes(found.config, folder, source);
  found.energy = energy_per_token(model, found.model.rules, found.config.data.context,
                                  energy_constants(constants));
  return found;
}

}  // namespace refract
