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
#include "train/together/batch_share.h"
#include "train/together/gradient_sum.h"

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

// Master weights, a half-precision copy where there is one, gradients, one or two fp32 moments; the
// sums of gradients that a step keeps beside these, and what passes between processes.
double state_bytes(const RunConfig& config, const ParameterArena& arena, int64_t processes) {
  double n = static_cast<double>(arena.count()),
         trained = static_cast<double>(arena.trainable_count());
  for (const Parameter& guide : arena.guides()) {  // at the beginning of the run
    n += static_cast<double>(guide.numel());
    trained += static_cast<double>(guide.numel());
  }
  const BatchShare share = share_of_batch(config, 0, processes);
  const bool half = config.train.precision == "bf16", several = processes > 1;
  const bool sharded = several && config.train.shard == "optimizer";
  const double compute = half ? 2 : 4;
  const double moments = config.optimizer.name == "sgd" ? 4 : 8;
  double bytes = 4 * n + (half ? compute * n : 0) + compute * trained;
  bytes += moments * trained / (sharded ? static_cast<double>(processes) : 1);
  if (half && (share.micro_batches() > 1 || several)) bytes += 4 * trained;
  for (int64_t groups = 1; groups < share.groups; groups *= 2) bytes += 4 * trained;
  if (several && (sharded || share.fixed_groups))
    bytes += 2 * 4 * std::min(trained, static_cast<double>(kExchangeBuffer));
  return bytes;
}

// What train.recompute = "layer" keeps: the first layer's one input, the others' two.
double layer_input_bytes(const RunConfig& config, int64_t processes) {
  if (config.train.recompute != "layer") return 0;
  const BatchShare share = share_of_batch(config, 0, processes);
  const int64_t inputs = 2 * config.model.num_hidden_layers - 1;
  const int64_t elements = share.micro_batch * config.data.context * config.model.hidden_size;
  return static_cast<double>(inputs * elements) * (config.train.precision == "bf16" ? 2 : 4);
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
  found.state_bytes = state_bytes(found.config, model.arena(), processes);
  found.layer_input_bytes = layer_input_bytes(found.config, processes);
  found.premerge_bytes = premerge_bytes(found.config, folder, source);
  found.energy = energy_per_token(model, found.model.rules, found.config.data.context,
                                  energy_constants(constants));
  return found;
}

}  // namespace refract
