// A recipe as a tree: its file, the recipes that it derives from, and the command line's overrides.
#pragma once
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

namespace refract {

// The recipe of a file, with the overrides ("key=value") merged in last.
//
// A recipe may name another by its top-level key `base`, a path relative to its own folder. The
// base is read first, with its own base if it has one, and the recipe's keys are merged over it:
// tables key by key; everything else, an array of tables such as [[transform]] too, replaces what
// the base has. A base lies in the folder of the recipe at `path`, or below it. The tree has no
// `base`. Fails (usage) for a base that is missing, lies elsewhere, derives from the recipe itself,
// or is not TOML; the message names both files.
nlohmann::json read_recipe(const std::string& path, const std::vector<std::string>& overrides);

// The overrides alone, as a tree.
nlohmann::json overrides_tree(const std::vector<std::string>& overrides);
// Sets the overrides in a tree; "transform.0.rank=4" reaches into the array of rules, and
// "transform.legacy=FILE" takes its place.
void merge_overrides(nlohmann::json& tree, const std::vector<std::string>& overrides);

// Whether the tree sets a dotted key itself.
bool sets_key(const nlohmann::json& tree, const std::string& key);

}  // namespace refract
