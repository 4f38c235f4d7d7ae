#include <algorithm>
#include <cstdio>
#include <nlohmann/json.hpp>
#include <optional>

#include "analysis/matching/align.h"
#include "analysis/merged.h"
#include "analysis/path.h"
#include "cli/commands.h"
#include "core/config.h"
#include "core/error.h"
#include "core/files.h"
#include "core/log.h"
#include "core/progress.h"
#include "formats/checkpoint.h"
#include "model/dense.h"
#include "runs/device.h"
#include "runs/plan.h"
#include "runs/recipe.h"
#include "studies/connectivity_output.h"
#include "studies/instability_runs.h"

namespace refract {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

class ConnectivityCommand : public Command {
 public:
  std::string name() const override { return "connectivity"; }
  std::string summary() const override {
    return "Instability analysis: train copies from several steps on and measure their barriers";
  }
  std::string example() const override {
    return "refract connectivity recipes/lmc/tinygpt.toml train.steps=400 schedule.warmup=40 "
           "connectivity.spawn=[0,100] run.dir=runs/lmc";
  }
  void declare(CommandLine& line) override {
    line.positional("recipe", recipe_, "TOML file with the settings of the runs and [connectivity]",
                    false);
    line.positional("overrides", overrides_, "key=value settings that replace the recipe's");
    line.flag("--help-keys", help_keys_, "list the settings of [connectivity]");
    line.flag("--json", json_, "print the outcome as one JSON object");
  }
  int run() override;

 private:
  void open();
  void check_settings() const;
  void claim_folder() const;
  ConnectivityResult measure(const InstabilityRuns& runs);
  PathResult measure_pair(const Member& a, const Member& b);
  std::optional<PathResult> saved_path(const fs::path& file, const json& with) const;
  PathResult path_of(const fs::path& file, const Member& a, const Member& b);
  Weights weights(const Member& member);
  Weights aligned(const Weights& a, const Weights& b);
  // Wrong settings are refused here, before anything is trained.
  PointOptions point_options() const;
  RunConfig path_config() const;
  json measured_with() const;

  std::string recipe_;
  std::vector<std::string> overrides_;
  bool help_keys_ = false, json_ = false;
  InstabilityPlan plan_;
  PointOptions options_;
  std::string used_engine_;         // of the path that was measured last
  std::unique_ptr<Decoder> model_;  // the paths are evaluated in
};

// What decides over a member's weights, beside the settings of all.
json end_json(const Member& member) {
  return {{"order_seed", member.config.data.order_seed},
          {"noise_seed", member.config.run.noise_seed},
          {"transform", member.config.transform}};
}

void ConnectivityCommand::open() {
  const json tree = read_recipe(recipe_, overrides_);
  plan_.connectivity = make_connectivity_config(tree, recipe_);
  Recipe recipe = open_recipe(recipe_, overrides_);
  plan_.config = recipe.config;
  plan_.source = recipe.source;
  plan_.where = recipe_;
  options_ = point_options();
  plan_.device = open_device(plan_.config);
  make_run_folder(plan_.config.run.dir);
  log_to_file(fs::path(plan_.config.run.dir) / "log.txt");
  plan_.data = open_run_data(plan_.config, plan_.source, recipe.names_tokenizer);
  log_info("data: {}", plan_.data.description);
}

// Of the model that paths are evaluated in.
RunConfig ConnectivityCommand::path_config() const {
  RunConfig config = plan_.config;
  if (plan_.connectivity.pairs == "transforms") config.transform.clear();
  return config;
}

// What the paths would only find once all is trained.
void ConnectivityCommand::check_settings() const {
  const ConnectivityConfig& c = plan_.connectivity;
  for (const std::string& name : c.splits) {
    const auto& stream = name == "train" ? plan_.data.train : plan_.data.validation;
    if (stream && stream->size() >= 2) continue;
    if (name == "train") fail_usage("{}: the train split has no two tokens", recipe_);
    fail_usage("{}: there is no validation split; set connectivity.splits = [\"train\"]", recipe_);
  }
  RunConfig config = path_config();
  const TransformedModel model = plan_model(config, recipe_);
  if (c.align != "none" && !model.rules.empty()) {
    fail_usage("{}: connectivity.align = \"{}\" is for models without [[transform]] rules", recipe_,
               c.align);
  }
  if (c.engine == "auto" || c.engine == "single") return;
  model.decoder->allocate(plan_.device, compute_dtype(config));
  const PointEvaluator refuses_others(*model.decoder, {}, options_);
}

// The folder may hold an earlier call's runs, of the same settings only.
void ConnectivityCommand::claim_folder() const {
  const fs::path file = fs::path(plan_.config.run.dir) / "config.toml";
  const std::string other = fs::exists(file) ? other_setting(file, plan_.config) : "";
  if (!other.empty()) {
    fail_usage(
        "'{}' holds an analysis with other settings (the first is at {}); choose another run.dir",
        plan_.config.run.dir, other);
  }
  write_file_atomically(file, to_toml(plan_.config));
}

Weights ConnectivityCommand::weights(const Member& member) {
  const fs::path folder = resolve_model_path(member.config.run.dir);
  if (plan_.connectivity.pairs == "transforms") {
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

Weights ConnectivityCommand::aligned(const Weights& a, const Weights& b) {
  RunConfig config = path_config();
  const TransformedModel first = plan_model(config, plan_.where),
                         second = plan_model(config, plan_.where);
  for (const auto& [model, point] : {std::pair(&first, &a), std::pair(&second, &b)}) {
    model->decoder->allocate(at::kCPU, at::kFloat);
    set_weights(*model->decoder, *point);
  }
  AlignOptions options;
  options.by = plan_.connectivity.align;
  options.stream = plan_.data.train;
  options.context = plan_.config.data.context;
  options.windows = std::max<int64_t>(1, 32768 / options.context);
  align(*first.decoder, *second.decoder, options);
  Weights result = weights_of(*second.decoder);
  result.parameters = result.parameters.to(plan_.device);
  return result;
}

PointOptions ConnectivityCommand::point_options() const {
  const ConnectivityConfig& c = plan_.connectivity;
  PointOptions options;
  options.context = plan_.config.data.context;
  options.engine = c.engine;
  const bool rules =
      c.pairs != "transforms" && !plan_.config.transform.empty() && plan_.config.transform != "[]";
  if (rules && (c.engine == "batched" || c.engine == "prefixes"))
    fail_usage("connectivity.engine = \"{}\" is for models without [[transform]] rules", c.engine);
  if (rules) options.engine = "single";
  options.max_windows = batches_of(c) * plan_.config.train.batch;
  return options;
}

PathResult ConnectivityCommand::measure_pair(const Member& a, const Member& b) {
  const ConnectivityConfig& c = plan_.connectivity;
  std::vector<Weights> corners = {weights(a), weights(b)};
  if (c.align != "none") corners[1] = aligned(corners[0], corners[1]);
  PathResult path;
  path.alphas = equally_spaced(c.alphas);
  path.geometry = geometry_of(corners[0], corners[1]);
  PointEvaluator evaluator(*model_, corners, options_);
  for (const std::string& name : c.splits) {
    const auto& stream = name == "train" ? plan_.data.train : plan_.data.validation;
    path.splits.push_back({name, evaluator.evaluate(*stream, path_points(path.alphas))});
  }
  used_engine_ = evaluator.engine();
  return path;
}

// The settings that a measured path depends on, beside its two runs.
json ConnectivityCommand::measured_with() const {
  const ConnectivityConfig& c = plan_.connectivity;
  return {{"alphas", c.alphas},          {"batches", c.batches},
          {"splits", c.splits},          {"align", c.align},
          {"engine", c.engine},          {"steps", plan_.config.train.steps},
          {"device", plan_.device.str()}};
}

// None for a file that is damaged or was measured with other settings.
std::optional<PathResult> ConnectivityCommand::saved_path(const fs::path& file,
                                                          const json& with) const {
  if (!fs::exists(file)) return std::nullopt;
  const json saved = json::parse(read_file(file, "the path"), nullptr, false);
  if (!saved.is_object() || saved.value("measured_with", json()) != with) return std::nullopt;
  try {
    const PathResult read = path_from_json(saved);
    PathResult path{read.alphas, {}, read.geometry};
    for (const std::string& name : plan_.connectivity.splits) {  // in the order of the settings
      const auto split = std::find_if(read.splits.begin(), read.splits.end(),
                                      [&](const PathSplit& s) { return s.name == name; });
      if (split == read.splits.end()) return std::nullopt;
      path.splits.push_back(*split);
    }
    const auto points = static_cast<size_t>(plan_.connectivity.alphas);
    return path.alphas.size() == points ? std::optional(path) : std::nullopt;
  } catch (const json::exception&) {
    return std::nullopt;
  }
}

PathResult ConnectivityCommand::path_of(const fs::path& file, const Member& a, const Member& b) {
  json with = measured_with();
  with["ends"] = {end_json(a), end_json(b)};
  with["merged"] = plan_.connectivity.pairs == "transforms";
  if (const std::optional<PathResult> saved = saved_path(file, with)) return *saved;
  const PathResult path = measure_pair(a, b);
  json out = path_json(path);
  out["a"] = a.config.run.dir;
  out["b"] = b.config.run.dir;
  out["engine"] = used_engine_;
  out["measured_with"] = with;
  write_file_atomically(file, out.dump(1) + "\n");
  return path;
}

ConnectivityResult ConnectivityCommand::measure(const InstabilityRuns& runs) {
  ConnectivityResult result;
  result.folder = plan_.config.run.dir;
  result.pairs = plan_.connectivity.pairs;
  result.seeds = runs.seeds();
  result.spawns = runs.spawns();
  result.threshold = plan_.connectivity.threshold;
  const size_t count = runs.members(result.seeds[0], result.spawns[0]).size();
  const auto total =
      static_cast<int64_t>(result.seeds.size() * result.spawns.size() * count * (count - 1) / 2);
  log_info("paths: {} of {} points", total, plan_.connectivity.alphas);
  Progress progress("paths", total);
  int64_t done = 0;
  for (int64_t seed : result.seeds) {
    for (int64_t spawn : result.spawns) {
      const std::vector<Member> members = runs.members(seed, spawn);
      SpawnResult spawned{seed, spawn, {}};
      for (size_t a = 0; a < count; ++a) {
        for (size_t b = a + 1; b < count; ++b) {
          const fs::path file = runs.folder(seed, spawn) /
                                fmt::format("path-{}~{}.json", members[a].name, members[b].name);
          spawned.pairs.push_back({a, b, path_of(file, members[a], members[b]),
                                   fs::relative(file, plan_.config.run.dir).string()});
          progress.update(++done);
        }
      }
      result.spawned.push_back(std::move(spawned));
      if (result.members.empty()) {
        for (const Member& member : members) result.members.push_back(member.name);
      }
    }
  }
  progress.finish();
  return result;
}

int ConnectivityCommand::run() {
  if (help_keys_) {
    Fields fields;
    ConnectivityConfig defaults;
    refract::describe(fields, defaults);
    std::fputs(fields.help_text().c_str(), stdout);
    return 0;
  }
  if (recipe_.empty())
    fail_usage("connectivity needs a recipe, e.g. refract connectivity recipes/lmc/tinygpt.toml");
  open();
  InstabilityRuns runs(plan_);
  check_settings();
  claim_folder();
  runs.check_folders();
  if (!runs.train()) {
    log_info("stopped by a signal; what was trained is saved, the same command goes on with it");
    return static_cast<int>(ExitCode::kFailed);
  }
  RunConfig config = path_config();
  model_ = plan_model(config, recipe_).decoder;
  model_->allocate(plan_.device, compute_dtype(plan_.config));
  const ConnectivityResult result = measure(runs);
  const fs::path folder = plan_.config.run.dir;
  write_file_atomically(folder / "connectivity.json", connectivity_json(result).dump(1) + "\n");
  write_file_atomically(folder / "connectivity.csv", connectivity_csv(result));
  write_connectivity_page(result);
  if (json_) {
    fmt::print("{}\n", connectivity_json(result).dump());
  } else {
    fmt::print("{}", connectivity_text(result));
  }
  log_info("written: {}", (folder / "report.html").string());
  return 0;
}

}  // namespace

std::unique_ptr<Command> make_connectivity_command() {
  return std::make_unique<ConnectivityCommand>();
}

}  // namespace refract
