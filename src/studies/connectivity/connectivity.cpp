#include "studies/connectivity/connectivity.h"

#include <filesystem>
#include <nlohmann/json.hpp>
#include <optional>

#include "core/error.h"
#include "core/files.h"
#include "core/log.h"
#include "core/system/folder_lock.h"
#include "runs/device.h"
#include "runs/open_recipe.h"
#include "runs/run_session.h"
#include "studies/connectivity/connectivity_config.h"
#include "studies/connectivity/connectivity_paths.h"
#include "studies/connectivity/instability_runs.h"
#include "train/run_config.h"

namespace refract {
namespace {

namespace fs = std::filesystem;

// Holds the analysis's folder from the moment that it is made.
InstabilityPlan open_plan(const std::string& path, const std::vector<std::string>& overrides,
                          std::optional<FolderLock>& lock) {
  InstabilityPlan plan;
  plan.where = path;
  plan.connectivity = make_connectivity_config(read_recipe(path, overrides), path);
  Recipe recipe = open_recipe(path, overrides);
  plan.config = recipe.config;
  plan.source = recipe.source;
  plan.names_tokenizer = recipe.names_tokenizer;
  path_point_options(plan);  // refuses settings before there is a folder
  plan.device = open_device(plan.config);
  make_run_folder(plan.config.run.dir);
  lock.emplace(plan.config.run.dir,
               "is being written by another process; wait for it, or choose another run.dir");
  log_to_file(fs::path(plan.config.run.dir) / "log.txt");
  plan.data = open_run_data(plan.config, plan.source, recipe.names_tokenizer);
  log_info("data: {}", plan.data.description);
  return plan;
}

// The folder may hold an earlier call's runs, of the same settings only.
void claim_folder(const RunConfig& config) {
  const fs::path file = fs::path(config.run.dir) / "config.toml";
  const std::string other = fs::exists(file) ? other_setting(file, config) : "";
  if (!other.empty()) {
    fail_usage(
        "'{}' holds an analysis with other settings (the first that differs: {}); choose another "
        "run.dir",
        config.run.dir, other);
  }
  write_file_atomically(file, to_toml(config));
}

void write_files(const ConnectivityResult& result) {
  const fs::path folder = result.folder;
  write_file_atomically(folder / "connectivity.json", connectivity_json(result).dump(1) + "\n");
  write_file_atomically(folder / "connectivity.csv", connectivity_csv(result));
  write_connectivity_page(result);
}

}  // namespace

std::optional<ConnectivityResult> run_connectivity(const std::string& recipe,
                                                   const std::vector<std::string>& overrides) {
  std::optional<FolderLock> lock;
  const InstabilityPlan plan = open_plan(recipe, overrides, lock);
  InstabilityRuns runs(plan);
  ConnectivityPaths paths(plan);
  paths.check_settings();
  claim_folder(plan.config);
  runs.check_folders();
  if (!runs.train()) return std::nullopt;
  ConnectivityResult result = paths.measure(runs);
  write_files(result);
  return result;
}

}  // namespace refract
