// The YAML form of a legacy rule file (transforms/legacy/legacy.h) as data: order, anchors and
// merge keys as PyYAML resolves them.
#pragma once
#include <filesystem>
#include <string>
#include <vector>

namespace refract {

// One entry of layer_name_to_config.
struct LegacyEntry {
  std::string pattern;
  std::string parameters;  // a JSON object without nulls, but for q_quantiles, where one says that
                           // there are none; "null": leave alone
  int line = 0;            // in the file, from 1
};

// The whole file.
struct LegacyYaml {
  bool use_regex = false;
  std::string flavor;                // transform_flavor: "fc", of bit flips; empty: not given
  std::vector<LegacyEntry> entries;  // in their order, without `default`
  std::string fallback;              // of `default`; empty: there is none
};

// Fails (usage) with file and line.
LegacyYaml read_legacy_yaml(const std::filesystem::path& path);

// A YAML file of another form that is a map, as JSON text. Fails (usage) with file and line.
std::string legacy_yaml_tree(const std::filesystem::path& path);
// Whether the file is a map with this key at its top. False where it can't be read.
bool legacy_yaml_has(const std::filesystem::path& path, const std::string& key);

}  // namespace refract
