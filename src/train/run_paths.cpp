#include "train/run_paths.h"

#include <functional>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

#include "core/error.h"
#include "core/files.h"
#include "core/paths.h"
#include "core/untrusted.h"
#include "data/files/hub_dataset.h"
#include "train/recipe.h"
#include "train/run_config.h"

namespace refract {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

// How a relative path of a run is found again from another folder.
enum class Relative {
  kAlways,       // it can be nothing else
  kWhereItLies,  // if it exists there: else it is a name, such as "bytes" or a Hub id
};

struct PathSetting {
  const char *table, *key;
  Relative relative;
  bool needed;  // may not be empty
};

constexpr PathSetting kPaths[] = {
    {"run", "dir", Relative::kAlways, true},
    {"data", "path", Relative::kAlways, true},
    {"data", "validation", Relative::kAlways, true},
    {"data", "tokenizer", Relative::kWhereItLies, true},
    {"data", "cache", Relative::kAlways, false},
    {"init", "from", Relative::kWhereItLies, true},
    {"init", "adapter", Relative::kAlways, false},
    {"distill", "teacher", Relative::kWhereItLies, false},
};

bool is_generated(const std::string& path) { return path.starts_with("stories:"); }

// Calls `change` with every path that the tree sets.
void for_each_path(
    json& tree, const std::function<std::string(const PathSetting&, const std::string&)>& change) {
  if (!tree.is_object()) return;
  for (const PathSetting& setting : kPaths) {
    const auto table = tree.find(setting.table);
    if (table == tree.end() || !table->is_object() || !table->contains(setting.key)) continue;
    json& value = table->at(setting.key);
    if (value.is_string()) value = change(setting, value.get<std::string>());
    if (!value.is_array()) continue;
    for (json& entry : value) {
      if (entry.is_string()) entry = change(setting, entry.get<std::string>());
    }
  }
}

std::string rebased(const PathSetting& setting, const std::string& path, const fs::path& origin) {
  if (path.empty() || is_generated(path) || fs::path(path).is_absolute()) return path;
  const fs::path there = (origin / path).lexically_normal();
  std::error_code ignored;
  const bool is_there = fs::exists(there, ignored);
  if (!is_there && std::string_view(setting.table) == "data" && names_hub_dataset(path))
    return path;
  if (setting.relative == Relative::kWhereItLies && !is_there) return path;
  return there.string();
}

json record_in(const fs::path& run) {
  const fs::path file = run / kCorpusRecord;
  std::error_code ignored;
  if (!fs::is_regular_file(file, ignored)) return {};
  json record = try_parse_json(read_file(file, "the run's record of its corpus")).value_or(json());
  return record.is_object() ? record : json();
}

// The folder that the run was started in; empty where the record doesn't say.
std::string started_in(const json& record) {
  const auto folder = record.find("relative_to");
  return folder != record.end() && folder->is_string() ? folder->get<std::string>() : "";
}

// The record of the run that a config.toml belongs to, its own or its checkpoint's.
json record_of(const fs::path& config) {
  if (config.filename() != "config.toml") return {};
  const fs::path folder = fs::absolute(config).parent_path();
  const bool checkpoint = folder.parent_path().filename() == "checkpoints";
  return record_in(checkpoint ? folder.parent_path().parent_path() : folder);
}

}  // namespace

void expand_setting_paths(json& tree) {
  for_each_path(tree, [](const PathSetting& setting, const std::string& path) {
    if (path.empty() && setting.needed) {
      fail_usage("{}.{} is empty; does it come from a variable that is not set?", setting.table,
                 setting.key);
    }
    return is_generated(path) ? path : expand_path(path);
  });
}

void restore_saved_settings(json& tree, const fs::path& config) {
  const json record = record_of(config);
  if (record.is_null()) return;
  if (record.value("tokenizer_of_model", json()) == json(true) && sets_key(tree, "data.tokenizer"))
    tree["data"].erase("tokenizer");
  const std::string origin = started_in(record);
  std::error_code ignored;
  if (origin.empty() || fs::equivalent(origin, fs::current_path(), ignored)) return;
  for_each_path(tree, [&](const PathSetting& setting, const std::string& path) {
    return rebased(setting, path, origin);
  });
}

fs::path origin_of(const fs::path& run) { return started_in(record_in(run)); }

void make_paths_absolute(RunConfig& config) {
  const auto absolute = [](std::string& path) {
    if (!path.empty() && !is_generated(path)) path = fs::absolute(path).lexically_normal().string();
  };
  const auto where_it_lies = [&](std::string& path) {  // else it is a name
    std::error_code ignored;
    if (!path.empty() && fs::exists(path, ignored)) absolute(path);
  };
  for (auto* list : {&config.data.path, &config.data.validation}) {
    for (std::string& path : *list) {
      if (!names_hub_dataset(path)) absolute(path);
    }
  }
  for (std::string* path : {&config.run.dir, &config.data.cache, &config.init.adapter})
    absolute(*path);
  for (std::string* path : {&config.data.tokenizer, &config.init.from, &config.distill.teacher})
    where_it_lies(*path);
}

}  // namespace refract
