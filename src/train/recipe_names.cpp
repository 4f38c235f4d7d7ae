#include "train/recipe_names.h"

#include <algorithm>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <system_error>
#include <vector>

#include "core/config.h"
#include "core/error.h"
#include "core/toml.h"
#include "core/untrusted.h"

namespace refract {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

// "run", "data", ..., as often as they have settings.
std::vector<std::string> tables_of(const Fields& settings) {
  std::vector<std::string> names;
  for (const Field& field : settings.all()) {
    names.push_back(field.key.substr(0, field.key.find('.')));
  }
  return names;
}

std::vector<std::string> with_foreign_tables(std::vector<std::string> names) {
  for (const auto& [name, check] : foreign_tables()) names.push_back(name);
  return names;
}

bool holds(const std::vector<std::string>& names, const std::string& name) {
  return std::find(names.begin(), names.end(), name) != names.end();
}

void check_table(const std::string& name, const json& table, const Fields& settings,
                 const std::string& where) {
  if (settings.find(name)) return;  // a value, such as transform = { legacy = ... }
  const std::vector<std::string> tables = with_foreign_tables(tables_of(settings));
  if (!holds(tables, name)) {
    const std::string nearest = nearest_name(name, tables);
    // As [optimzer] is of a setting, whose whole name Fields finds.
    if (foreign_tables().contains(nearest) || settings.find(nearest))
      fail_usage("{}: unknown table [{}]; did you mean [{}]?", where, shown(name), nearest);
  } else if (table.contains("base") && !settings.find(name + ".base")) {
    fail_usage("{}: base stands in the table [{}]; move it to the top, before the first table",
               where, name);
  }
}

void check_key(const std::string& name, const Fields& settings, const std::string& where) {
  if (settings.find(name)) return;
  std::vector<std::string> names = {"base"};
  for (const Field& field : settings.all()) names.push_back(field.key);
  const std::string nearest = nearest_name(name, with_foreign_tables(std::move(names)));
  if (name != nearest && !settings.find(nearest))
    fail_usage("{}: unknown key '{}'; did you mean '{}'?", where, shown(name), nearest);
}

bool is_recipe(const fs::path& file, const Fields& settings) {
  std::error_code ignored;
  if (file.extension() != ".toml" || !fs::is_regular_file(file, ignored)) return false;
  json tree;
  try {
    tree = read_toml(file);
  } catch (const Error&) {
    return false;
  }
  std::vector<std::string> names = with_foreign_tables(tables_of(settings));
  names.emplace_back("base");
  bool more_than_rules = false;
  for (const auto& [name, value] : tree.items()) {
    if (!holds(names, name)) return false;
    more_than_rules = more_than_rules || name != "transform";
  }
  return more_than_rules;
}

// "; it holds a.toml, b.toml" for a folder in which there are some.
std::string recipes_in(const fs::path& folder, const Fields& settings) {
  constexpr size_t kNamed = 3;
  std::vector<fs::path> files;
  std::error_code ignored;
  for (const auto& entry : fs::directory_iterator(folder, ignored)) files.push_back(entry.path());
  std::sort(files.begin(), files.end());
  std::string text;
  size_t found = 0;
  for (const fs::path& file : files) {
    if (!is_recipe(file, settings)) continue;
    if (++found > kNamed) return text.append(", ...");
    text.append(found == 1 ? "; it holds " : ", ").append(shown(file.string()));
  }
  return text;
}

}  // namespace

std::map<std::string, RecipeTableCheck>& foreign_tables() {
  static std::map<std::string, RecipeTableCheck> tables;
  return tables;
}

void check_recipe_names(const json& tree, const Fields& settings, const std::string& where) {
  if (!tree.is_object()) return;
  for (const auto& [name, value] : tree.items()) {
    if (value.is_object()) {
      check_table(name, value, settings, where);
    } else {
      check_key(name, settings, where);
    }
  }
}

void refuse_folder(const std::string& path, const Fields& settings) {
  std::error_code ignored;
  if (!fs::is_directory(path, ignored)) return;
  fail_usage("'{}' is a folder, and a recipe is a TOML file{}", path, recipes_in(path, settings));
}

}  // namespace refract
