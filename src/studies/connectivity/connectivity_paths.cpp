#include "studies/connectivity/connectivity_paths.h"

#include <nlohmann/json.hpp>
#include <utility>

#include "analysis/merged.h"
#include "core/error.h"
#include "core/files.h"
#include "core/log.h"
#include "core/progress.h"
#include "formats/load_weights.h"
#include "formats/model_path.h"
#include "runs/device.h"
#include "runs/plan.h"
#include "studies/alignment.h"
#include "studies/path_measure.h"
#include "studies/path_record.h"

namespace refract {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

// What decides over a member's weights, beside the settings of all.
json end_json(const Member& member) {
  return {{"order_seed", member.config.data.order_seed},
          {"noise_seed", member.config.run.noise_seed},
          {"transform", member.config.transform}};
}

// Variants of the rules have a path between the dense models that they multiply by.
bool is_merged(const InstabilityPlan& plan) { return plan.connectivity.pairs == "transforms"; }

}  // namespace

PointOptions path_point_options(const InstabilityPlan& plan) {
  const ConnectivityConfig& c = plan.connectivity;
  const bool rules =
      !is_merged(plan) && !plan.config.transform.empty() && plan.config.transform != "[]";
  PointOptions options;
  options.context = plan.config.data.context;
  options.engine =
      engine_for(c.engine, rules, fmt::format("connectivity.engine = \"{}\"", c.engine));
  options.max_windows = batches_of(c) * plan.config.train.batch;
  return options;
}

ConnectivityPaths::ConnectivityPaths(InstabilityPlan plan)
    : plan_(std::move(plan)), options_(path_point_options(plan_)) {}

// Of the model that paths are evaluated in.
RunConfig ConnectivityPaths::path_config() const {
  RunConfig config = plan_.config;
  if (is_merged(plan_)) config.transform.clear();
  return config;
}

const std::shared_ptr<TokenStream>& ConnectivityPaths::stream_of(const std::string& split) const {
  return split == "train" ? plan_.data.train : plan_.data.validation;
}

void ConnectivityPaths::check_settings() const {
  const ConnectivityConfig& c = plan_.connectivity;
  for (const std::string& name : c.splits) {
    const auto& stream = stream_of(name);
    if (stream && stream->size() >= 2) continue;
    if (name == "train") fail_usage("{}: the train split has fewer than two tokens", plan_.where);
    fail_usage("{}: there is no validation split; set connectivity.splits = [\"train\"]",
               plan_.where);
  }
  RunConfig config = path_config();
  const TransformedModel model = plan_model(config, plan_.where);
  if (c.align != "none" && !model.rules.empty()) {
    fail_usage("{}: connectivity.align = \"{}\" is for models without [[transform]] rules",
               plan_.where, c.align);
  }
  if (c.engine == "auto" || c.engine == "single") return;
  model.decoder->allocate(plan_.device, compute_dtype(config));
  const PointEvaluator refuses_others(*model.decoder, {}, options_);
}

Weights ConnectivityPaths::weights(const Member& member) {
  const fs::path folder = resolve_model_path(member.config.run.dir);
  if (is_merged(plan_)) {
    RunConfig config = member.config;
    const TransformedModel own = plan_model(config, plan_.where);
    own.decoder->allocate(at::kCPU, at::kFloat);
    load_weights(*own.decoder, folder);
    copy_merged(*own.decoder, *model_);
  } else {
    load_weights(*model_, folder);
  }
  return weights_of(*model_);
}

// The weights of `b`, aligned with `a`.
Weights ConnectivityPaths::aligned(const Weights& a, const Weights& b) const {
  RunConfig config = path_config();
  const TransformedModel first = plan_model(config, plan_.where),
                         second = plan_model(config, plan_.where);
  for (const auto& [model, point] : {std::pair(&first, &a), std::pair(&second, &b)}) {
    model->decoder->allocate(at::kCPU, at::kFloat);
    set_weights(*model->decoder, *point);
  }
  AlignWords words;
  words.by = plan_.connectivity.align;
  align(*first.decoder, *second.decoder,
        align_options(words, plan_.data.train, plan_.config.data.context));
  Weights result = weights_of(*second.decoder);
  result.parameters = result.parameters.to(plan_.device);
  return result;
}

PathResult ConnectivityPaths::measure_pair(const Member& a, const Member& b) {
  const ConnectivityConfig& c = plan_.connectivity;
  std::vector<Weights> corners = {weights(a), weights(b)};
  if (c.align != "none") corners[1] = aligned(corners[0], corners[1]);
  std::vector<NamedStream> streams;
  for (const std::string& name : c.splits) streams.push_back({name, stream_of(name)});
  return measure_path(*model_, corners, options_, streams, c.alphas);
}

// What a measured path depends on.
json ConnectivityPaths::measured_with(const Member& a, const Member& b) const {
  const ConnectivityConfig& c = plan_.connectivity;
  return {{"alphas", c.alphas},           {"batches", c.batches},
          {"splits", c.splits},           {"align", c.align},
          {"engine", c.engine},           {"steps", plan_.config.train.steps},
          {"device", plan_.device.str()}, {"ends", {end_json(a), end_json(b)}},
          {"merged", is_merged(plan_)}};
}

// None for a file that is damaged or was measured with other settings.
std::optional<PathResult> ConnectivityPaths::saved_path(const fs::path& file,
                                                        const json& with) const {
  if (!fs::exists(file)) return std::nullopt;
  const ConnectivityConfig& c = plan_.connectivity;
  return read_path(read_file(file, "the path"), with, c.splits, static_cast<size_t>(c.alphas));
}

PathResult ConnectivityPaths::path_of(const fs::path& file, const Member& a, const Member& b) {
  const json with = measured_with(a, b);
  if (const std::optional<PathResult> saved = saved_path(file, with)) return *saved;
  const PathResult path = measure_pair(a, b);
  json out = path_json(path);
  out["a"] = a.config.run.dir;
  out["b"] = b.config.run.dir;
  out["measured_with"] = with;
  write_file_atomically(file, out.dump(1) + "\n");
  return path;
}

std::vector<PairPath> ConnectivityPaths::pairs_of(const InstabilityRuns& runs,
                                                  const SpawnResult& spawned,
                                                  const std::function<void()>& progressed) {
  std::vector<PairPath> pairs;
  const std::vector<Member> members = runs.members(spawned.seed, spawned.spawn);
  for (size_t a = 0; a < members.size(); ++a) {
    for (size_t b = a + 1; b < members.size(); ++b) {
      const fs::path file = runs.folder(spawned.seed, spawned.spawn) /
                            fmt::format("path-{}~{}.json", members[a].name, members[b].name);
      pairs.push_back({a, b, path_of(file, members[a], members[b]),
                       fs::relative(file, plan_.config.run.dir).string()});
      progressed();
    }
  }
  return pairs;
}

ConnectivityResult ConnectivityPaths::measure(const InstabilityRuns& runs) {
  RunConfig config = path_config();
  model_ = plan_model(config, plan_.where).decoder;
  model_->allocate(plan_.device, compute_dtype(plan_.config));
  ConnectivityResult result;
  result.folder = plan_.config.run.dir;
  result.pairs = plan_.connectivity.pairs;
  result.seeds = runs.seeds();
  result.spawns = runs.spawns();
  result.threshold = plan_.connectivity.threshold;
  for (const Member& member : runs.members(result.seeds[0], result.spawns[0]))
    result.members.push_back(member.name);
  const size_t count = result.members.size();
  const auto total =
      static_cast<int64_t>(result.seeds.size() * result.spawns.size() * count * (count - 1) / 2);
  log_info("paths: {} of {} points", total, plan_.connectivity.alphas);
  Progress progress("paths", total);
  int64_t done = 0;
  for (int64_t seed : result.seeds) {
    for (int64_t spawn : result.spawns) {
      SpawnResult spawned{seed, spawn, {}};
      spawned.pairs = pairs_of(runs, spawned, [&] { progress.update(++done); });
      result.spawned.push_back(std::move(spawned));
    }
  }
  progress.finish();
  return result;
}

}  // namespace refract
