// The names at the top of a recipe: the tables of a run's settings, the tables that others enter,
// and `base`. What isn't a setting is not known to Fields, and hints have to name it too.
#pragma once
#include <functional>
#include <map>
#include <nlohmann/json_fwd.hpp>
#include <string>

namespace refract {

class Fields;

// Gets the whole tree and where it came from; fails (usage) for what is wrong.
using RecipeTableCheck = std::function<void(const nlohmann::json&, const std::string&)>;
// The tables that register_recipe_table() has entered, by their names.
std::map<std::string, RecipeTableCheck>& foreign_tables();

// Fails (usage) for a name at the top of a recipe that is none, where the nearest known one is not
// one of `settings`, and for a `base` inside a table. Other unknown names are left to
// Fields::set_all().
void check_recipe_names(const nlohmann::json& tree, const Fields& settings,
                        const std::string& where);

// Fails (usage) where `path` is a folder, and names recipes that it holds. Rules alone, constants
// and other TOML files are not recipes.
void refuse_folder(const std::string& path, const Fields& settings);

}  // namespace refract
