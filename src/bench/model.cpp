#include "bench/model.h"

#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "bench/inputs.h"
#include "bench/timing.h"
#include "core/config.h"
#include "formats/load_weights.h"
#include "formats/model_path.h"
#include "runs/model_folder.h"
#include "runs/open_recipe.h"
#include "runs/plan.h"
#include "transforms/kind.h"

namespace refract {
namespace {

// Where a recipe's model is shorter than the benchmark wants, it is made longer: speed does not
// depend on what positions mean.
void lengthen(RunConfig& config, int64_t least) {
  int64_t& longest = config.model.max_position_embeddings;
  longest = std::max(longest, least);
}

// Starting values by an SVD of every layer take minutes and change no time: normal ones instead,
// where a kind has the choice.
void draw_normal(RunConfig& config) {
  if (config.transform.empty()) return;
  nlohmann::json rules = nlohmann::json::parse(config.transform);
  if (!rules.is_array()) return;
  for (auto& rule : rules) {
    if (!rule.contains("kind") || rule["kind"] == "none") continue;
    const auto kind = find_kind(rule["kind"].get<std::string>()).make();
    Fields fields;
    kind->describe(fields);
    if (fields.find("init")) rule["init"] = "normal";
  }
  config.transform = rules.dump();
}

}  // namespace

void BenchModel::set_premerge(std::optional<int64_t> tokens) {
  const PremergeSettings settings = premerge_settings(config, folder, device.device);
  for (const PremergeGroup& group : premerged) {
    group.layer->set_tokens(
        tokens.value_or(settings.table.find(group.shape, settings.device, settings.precision)
                            .value_or(settings.default_tokens)));
  }
}

BenchModel open_bench_model(const std::string& source, const BenchSettings& settings,
                            int64_t least_context) {
  BenchModel bench;
  const std::vector<std::string> overrides = settings.with_precision();
  if (source.ends_with(".toml")) {
    bench.config = open_resolved_recipe(source, overrides).config;
    lengthen(bench.config, least_context);
    draw_normal(bench.config);
  } else {
    bench.folder = resolve_model_path(source);
    bench.config = folder_config(bench.folder, overrides, source);
    resolve(bench.config.model, 0, bench.config.data.context);
  }
  bench.config.self_guided.mode = "none";  // the model that is left when the guide is gone
  bench.device = bench_device(bench.config);
  PremergeSettings premerge = premerge_settings(bench.config, bench.folder, bench.device.device);
  premerge.mode = "auto";
  TransformedModel planned = plan_model(bench.config, source, &premerge);
  bench.model = std::move(planned.decoder);
  bench.premerged = std::move(planned.premerged);
  bench.model->isolate_documents(std::nullopt);  // the tokens here are drawn, and have no documents
  bench.model->allocate(bench.device.device, bench.device.dtype);
  if (bench.folder.empty()) {
    bench.model->initialize(static_cast<uint64_t>(bench.config.run.seed));
  } else {
    load_weights(*bench.model, bench.folder);
  }
  return bench;
}

void check_model(BenchModel& bench, int64_t tokens) {
  const at::NoGradGuard no_grad;
  const bool mergeable = std::all_of(bench.premerged.begin(), bench.premerged.end(),
                                     [](const auto& group) { return group.layer->mergeable(); });
  if (!mergeable || bench.premerged.empty()) return;
  const at::Tensor input =
      random_tokens(1, tokens, bench.config.model.vocab_size, 1).to(bench.device.device);
  bench.set_premerge(0);
  const at::Tensor structured = bench.model->hidden({}, input);
  bench.set_premerge(kPremergeAlways);
  const at::Tensor merged = bench.model->hidden({}, input);
  bench.set_premerge(std::nullopt);
  check_against(structured, merged, "the model's structured form");
}

}  // namespace refract
