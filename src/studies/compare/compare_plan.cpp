#include "studies/compare/compare_plan.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <set>

#include "analysis/calibration.h"
#include "core/config.h"
#include "core/error.h"
#include "core/toml.h"
#include "core/untrusted.h"
#include "train/recipe.h"
#include "train/run_config.h"
#include "transforms/rules.h"

namespace refract {
namespace {

using nlohmann::json;

constexpr size_t kLongestName = 100;

// A name as a folder's: letters, digits and a few signs.
std::string folder_name(const std::string& name) {
  std::string folder;
  for (const char c : name) {
    const bool plain = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
                       c == '_' || c == '=' || c == '.';
    folder += plain && !(folder.empty() && c == '.') ? c : '-';
  }
  return folder;
}

void check_table(const json& table, const std::vector<std::string>& known,
                 const std::string& where) {
  if (!table.is_object()) fail_usage("{} is not a table", where);
  for (const auto& [key, value] : table.items()) {
    if (std::find(known.begin(), known.end(), key) != known.end()) continue;
    fail_usage("{}: unknown key '{}'; did you mean '{}'?", where, shown(key),
               nearest_name(key, known));
  }
}

std::string text_of(const json& row, const char* key, const std::string& where) {
  if (!row.contains(key)) return "";
  if (!row[key].is_string() || row[key].get<std::string>().empty())
    fail_usage("{}: '{}' takes text", where, key);
  return row[key].get<std::string>();
}

// The settings of a repair: those of a recipe, checked as one.
std::string repair_of(const json& row, const json& shared, const std::string& where) {
  json settings = shared;
  if (row.contains("repair")) {
    const json& own = row["repair"];
    if (own == json(false)) return "";
    if (!own.is_object()) fail_usage("{}: 'repair' takes a table of settings, or false", where);
    if (settings.is_null()) settings = json::object();
    settings.merge_patch(own);
  }
  if (settings.is_null()) return "";
  for (const char* key : {"init", "run", "transform"}) {
    if (settings.contains(key))
      fail_usage("{}: a repair can't set '{}'; the comparison does", where, key);
  }
  if (!sets_key(settings, "train.steps") && !sets_key(settings, "train.tokens"))
    fail_usage("{}: a repair needs train.steps", where);
  if (!sets_key(settings, "data.path"))
    fail_usage("{}: a repair needs data.path, the text that it trains on", where);
  json checked = settings;
  checked["init"] = {{"from", "the model"}};
  make_run_config(checked, where);
  return settings.dump();
}

void check_method(const std::string& calibrate, const std::string& where) {
  if (calibrate.empty()) return;
  RangeSearch search;
  search.method = calibrate;
  try {
    check_range_search(search);
  } catch (const Error& complaint) {
    throw Error(fmt::format("{}: 'calibrate': {}", where, complaint.what()), complaint.code());
  }
}

bool has_medium(const CompareRow& row) {
  return !row.medium.kind.empty() || !row.medium.rules.empty() || !row.transform.empty();
}

CompareRow parse_row(const json& table, const json& repair, const std::string& where) {
  check_table(table, {"name", "kind", "rules", "transform", "calibrate", "repair"}, where);
  CompareRow row;
  row.name = text_of(table, "name", where);
  if (row.name.empty()) fail_usage("{}: 'name' is missing", where);
  if (row.name.size() > kLongestName)
    fail_usage("{}: 'name' has {} bytes, and at most {} are possible: a folder is called so", where,
               row.name.size(), kLongestName);
  row.folder = folder_name(row.name);
  if (table.contains("kind")) {
    const json& kind = table["kind"];
    row.medium.kind = kind.is_string() ? kind.get<std::string>() : to_toml_value(kind);
  }
  row.medium.rules = text_of(table, "rules", where);
  if (table.contains("transform")) {
    row.transform = table["transform"].dump();
    Rules::parse(row.transform, where);
  }
  const auto media = {"kind", "rules", "transform"};
  if (std::count_if(media.begin(), media.end(), [&](auto key) { return table.contains(key); }) > 1)
    fail_usage("{}: kind, rules and transform exclude each other", where);
  row.calibrate = text_of(table, "calibrate", where);
  if (!row.calibrate.empty() && !has_medium(row))
    fail_usage("{}: there is no medium to calibrate", where);
  check_method(row.calibrate, where);
  row.repair = repair_of(table, repair, where);
  row_overrides(row, {});  // fails for a kind or rules that are none
  return row;
}

}  // namespace

ComparePlan read_compare_plan(const std::filesystem::path& file) {
  const std::string source = file.string();
  const json tree = read_toml(file);
  check_table(tree, {"repair", "row"}, source);
  const json repair = tree.value("repair", json());
  if (!tree.contains("row") || !tree["row"].is_array() || tree["row"].empty())
    fail_usage("{}: there is no row; write [[row]] with name and kind below it", source);
  ComparePlan plan;
  std::set<std::string> folders;
  for (size_t i = 0; i < tree["row"].size(); ++i) {
    const std::string where = fmt::format("{}: row {}", source, i + 1);
    plan.rows.push_back(parse_row(tree["row"][i], repair, where));
    if (!folders.insert(plan.rows.back().folder).second) {
      fail_usage("{}: another row is called '{}', or as good as that", where,
                 shown(plan.rows.back().name));
    }
  }
  const auto plain = std::find_if_not(plan.rows.begin(), plan.rows.end(), has_medium);
  if (plain == plan.rows.end()) {
    plan.rows.insert(plan.rows.begin(),
                     parse_row({{"name", "dense"}}, repair, source + ": the row \"dense\""));
  } else {
    std::rotate(plan.rows.begin(), plain, plain + 1);
  }
  return plan;
}

std::vector<std::string> row_overrides(const CompareRow& row,
                                       const std::vector<std::string>& overrides) {
  if (has_medium(row) && row.transform.empty()) return with_medium(row.medium, overrides);
  const std::string rules =
      row.transform.empty() ? "[]" : to_toml_value(json::parse(row.transform));
  std::vector<std::string> all = {"transform=" + rules};
  all.insert(all.end(), overrides.begin(), overrides.end());
  return all;
}

}  // namespace refract
