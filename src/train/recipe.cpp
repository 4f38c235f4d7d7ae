#include "train/recipe.h"

#include <algorithm>
#include <charconv>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <system_error>
#include <utility>

#include "core/config.h"
#include "core/error.h"
#include "core/paths.h"
#include "core/toml.h"
#include "core/untrusted.h"
#include "text/utf8.h"
#include "train/recipe_names.h"
#include "train/run_config.h"
#include "train/run_paths.h"

namespace refract {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

// The recipes that one recipe is made of, each the base of the one before it.
class Chain {
 public:
  explicit Chain(const fs::path& first) : names_{first.string()}, places_{place(first)} {
    top_ = place(fs::absolute(first).parent_path());
  }

  // The base of the newest recipe, as a tree.
  json read_base(const json& base);

 private:
  // Without symbolic links and "..", as far as the file exists.
  static fs::path place(const fs::path& file) {
    std::error_code ignored;
    return fs::weakly_canonical(fs::absolute(file), ignored);
  }
  bool in_top(const fs::path& file) const {
    return std::mismatch(top_.begin(), top_.end(), file.begin(), file.end()).first == top_.end();
  }

  std::vector<std::string> names_;  // as people wrote them
  std::vector<fs::path> places_;
  fs::path top_;  // the first one's folder
};

json Chain::read_base(const json& base) {
  const std::string recipe = names_.back();
  if (!base.is_string()) {
    fail_usage("{}: base takes the path of a recipe, as text, not {}", recipe,
               shown(to_toml_value(base)));
  }
  const fs::path wanted = base.get<std::string>();
  if (wanted.is_absolute()) {
    fail_usage("{}: its base '{}' is an absolute path; write it relative to the recipe's folder",
               recipe, shown(wanted.string()));
  }
  const std::string name = (fs::path(recipe).parent_path() / wanted).string();
  std::error_code error;
  const fs::path file = fs::canonical(name, error);
  if (error) fail_usage("{}: can't open its base '{}': {}", recipe, shown(name), error.message());
  if (!in_top(file)) {
    fail_usage("{}: its base '{}' lies outside of '{}', the folder of {}; move it there, or below",
               recipe, shown(name), top_.string(), names_.front());
  }
  const bool known = std::find(places_.begin(), places_.end(), file) != places_.end();
  names_.push_back(name);
  places_.push_back(file);
  if (known) {
    fail_usage("{}: its base '{}' derives from it: {}", recipe, shown(name),
               fmt::join(names_, " -> "));
  }
  if (!fs::is_regular_file(file))
    fail_usage("{}: its base '{}' is not a file", recipe, shown(name));
  try {
    return read_toml(name);
  } catch (const Error& complaint) {
    throw Error(fmt::format("{}: its base is wrong: {}", recipe, complaint.what()),
                ExitCode::kUsage);
  }
}

// An installed program's own recipes have the names that they have in a checkout.
std::string found_recipe(const std::string& path) {
  std::error_code ignored;
  if (fs::exists(path, ignored) || !path.starts_with("recipes/")) return path;
  const fs::path own = installed_file(path);
  return own.empty() ? path : own.string();
}

json read_with_bases(const std::string& path) {
  json tree = read_toml(path);
  restore_saved_settings(tree, path);
  if (!tree.contains("base")) return tree;
  Chain chain(path);
  while (tree.contains("base")) {
    const json name = tree.at("base");
    tree.erase("base");
    json base = chain.read_base(name);
    base.merge_patch(tree);
    tree = std::move(base);  // where the base has a base itself, that is the next one
  }
  return tree;
}

// The child of a table by its name, or of an array (the transform rules) by its index.
json& child(json& node, const std::string& part, const std::string& key) {
  if (!node.is_array()) return node[part];
  size_t index = 0;
  const auto [end, error] = std::from_chars(part.data(), part.data() + part.size(), index);
  if (error != std::errc() || end != part.data() + part.size() || index >= node.size()) {
    fail_usage("can't set '{}': '{}' is not an index of its {} entries, which are counted from 0",
               key, part, node.size());
  }
  return node[index];
}

// The settings of a run, for their types.
const Fields& run_settings() {
  static RunConfig defaults;
  static const Fields fields = [] {
    Fields made;
    describe(made, defaults);
    return made;
  }();
  return fields;
}

bool all_text(const json& list) {
  return list.is_array() &&
         std::all_of(list.begin(), list.end(), [](const json& v) { return v.is_string(); });
}

// What is typed for a text is that text: run.dir=1.10 is no number. Quotes as TOML has them are
// taken off, and a list of texts may be written as one.
json as_typed(const std::string& key, const std::string& typed, json read) {
  const Field* field = run_settings().find(key);
  if (!field) return read;
  const bool list = field->type == "a list of text";
  const bool choice = field->type.find(" | ") != std::string::npos && field->type != "true | false";
  if (field->type != "text" && !choice && !list) return read;
  const bool quoted = typed.starts_with('"') || typed.starts_with('\'');
  if (quoted && read.is_string()) return read;
  if (list && typed.starts_with('[') && all_text(read)) return read;
  return typed;
}

// A rule file stands for all rules, so it takes the place of those that the recipe has.
void make_room_for_rule_file(json& tree, const std::string& key) {
  if (key != "transform.legacy") return;
  const auto rules = tree.find("transform");
  if (rules != tree.end() && rules->is_array()) *rules = json::object();
}

void merge(json& tree, const std::string& key, json value) {
  make_room_for_rule_file(tree, key);
  json* node = &tree;
  size_t begin = 0;
  for (size_t dot; (dot = key.find('.', begin)) != std::string::npos; begin = dot + 1) {
    node = &child(*node, key.substr(begin, dot - begin), key);
    if (!node->is_object() && !node->is_array() && !node->is_null())
      fail_usage("can't set '{}': '{}' is not a table", key, key.substr(0, dot));
  }
  child(*node, key.substr(begin), key) = std::move(value);
}

}  // namespace

json read_recipe(const std::string& path, const std::vector<std::string>& overrides) {
  const std::string file = found_recipe(path);
  refuse_folder(file, run_settings());
  json tree = read_with_bases(file);
  merge_overrides(tree, overrides);
  return tree;
}

json overrides_tree(const std::vector<std::string>& overrides) {
  json tree = json::object();
  merge_overrides(tree, overrides);
  return tree;
}

void merge_overrides(json& tree, const std::vector<std::string>& overrides) {
  for (const std::string& text : overrides) {
    if (!is_valid_utf8(text)) {
      fail_usage(
          "'{}' is not UTF-8, and settings are; a file with such a name is reached through its "
          "folder",
          repair_utf8(text));
    }
    auto [key, value] = parse_override(text);
    if (key == "base") fail_usage("'{}': a base is named in a recipe, not by an override", text);
    merge(tree, key, as_typed(key, text.substr(key.size() + 1), std::move(value)));
  }
  expand_setting_paths(tree);
}

bool sets_key(const json& tree, const std::string& key) {
  std::string pointer = "/" + key;
  std::replace(pointer.begin(), pointer.end(), '.', '/');
  return tree.contains(json::json_pointer(pointer));
}

}  // namespace refract
