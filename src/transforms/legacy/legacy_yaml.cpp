#include "transforms/legacy/legacy_yaml.h"

#include <yaml-cpp/yaml.h>

#include <charconv>
#include <cmath>
#include <fstream>
#include <iterator>
#include <nlohmann/json.hpp>
#include <set>
#include <unordered_map>

#include "core/config.h"
#include "core/error.h"
#include "core/untrusted.h"
#include "text/utf8.h"

namespace refract {
namespace {

using nlohmann::json;
using Pairs = std::vector<std::pair<YAML::Node, YAML::Node>>;

constexpr const char* kMergeKey = "<<";
// Values that a rule file may come to; real ones have a few hundred.
constexpr int64_t kMaxNodes = 100'000;

int line_of(const YAML::Node& node) { return node.Mark().line + 1; }

// A plain scalar's value; a quoted one (tag "!") stays text.
json scalar(const YAML::Node& node) {
  const std::string& text = node.Scalar();
  if (node.Tag() == "!") return text;
  if (text.empty() || text == "~" || text == "null" || text == "Null" || text == "NULL")
    return nullptr;
  if (text == "true" || text == "True" || text == "TRUE") return true;
  if (text == "false" || text == "False" || text == "FALSE") return false;
  const char *begin = text.data() + (text[0] == '+' ? 1 : 0), *end = text.data() + text.size();
  int64_t integer = 0;
  if (auto [at, error] = std::from_chars(begin, end, integer); error == std::errc() && at == end)
    return integer;
  double number = 0;
  if (auto [at, error] = std::from_chars(begin, end, number);
      error == std::errc() && at == end && std::isfinite(number))
    return number;
  return text;
}

class Reader {
 public:
  explicit Reader(std::string file) : file_(std::move(file)) {}

  template <class... Args>
  [[noreturn]] void wrong(const YAML::Node& node, fmt::format_string<Args...> format,
                          Args&&... args) const {
    fail_usage("{}, line {}: {}", file_, line_of(node),
               fmt::format(format, std::forward<Args>(args)...));
  }

  // The pairs of a map with its merge keys resolved: what is merged comes first, in its order, and
  // the map's own values replace merged ones where they stand; of several merged maps the earlier
  // one wins.
  Pairs pairs(const YAML::Node& map) {
    const Level level(*this, map);
    Merged all;
    for (const auto& pair : map) {
      if (is_merge(pair.first)) merge(pair.second, all);
    }
    std::set<std::string> own;
    for (const auto& pair : map) {
      if (is_merge(pair.first)) continue;
      if (!pair.first.IsScalar()) wrong(pair.first, "a key must be a name or an expression");
      if (!own.insert(pair.first.Scalar()).second)
        wrong(pair.first, "'{}' appears twice; remove one", shown(pair.first.Scalar()));
      set(all, pair.first, pair.second, true);
    }
    return std::move(all.pairs);
  }

  json value(const YAML::Node& node) {
    const Level level(*this, node);
    if (node.IsNull()) return nullptr;
    if (node.IsScalar()) return scalar(node);
    if (node.IsSequence()) {
      json list = json::array();
      for (const auto& entry : node) list.push_back(value(entry));
      return list;
    }
    json object = json::object();
    for (const auto& [key, entry] : pairs(node)) object[key.Scalar()] = value(entry);
    return object;
  }

 private:
  static bool is_merge(const YAML::Node& key) {
    return key.IsScalar() && key.Scalar() == kMergeKey && key.Tag() != "!";
  }

  // Pairs in their order, and where each name stands among them.
  struct Merged {
    Pairs pairs;
    std::unordered_map<std::string, size_t> place;
  };

  // Aliases make a short file name the same node again and again, or a node inside of itself. So
  // what is read is counted, not what the file holds.
  class Level {
   public:
    Level(Reader& reader, const YAML::Node& node) : reader_(reader) {
      if (++reader_.depth_ > kMaxDepth)
        reader_.wrong(node, "it nests deeper than {} levels; does an alias name itself?",
                      kMaxDepth);
      reader_.count(node);
    }
    ~Level() { --reader_.depth_; }
    Level(const Level&) = delete;
    Level& operator=(const Level&) = delete;

   private:
    Reader& reader_;
  };

  void count(const YAML::Node& node) {
    if (++read_ > kMaxNodes) {
      wrong(node, "its aliases make it more than {} values; write out what it should say",
            kMaxNodes);
    }
  }

  void set(Merged& all, const YAML::Node& key, const YAML::Node& value, bool replace) {
    count(key);
    const auto [entry, fresh] = all.place.try_emplace(key.Scalar(), all.pairs.size());
    if (fresh) {
      all.pairs.emplace_back(key, value);
    } else if (replace) {
      all.pairs[entry->second].second.reset(value);
    }
  }

  void merge(const YAML::Node& source, Merged& all) {
    const Level level(*this, source);
    if (source.IsSequence()) {
      for (const auto& map : source) merge(map, all);
      return;
    }
    if (!source.IsMap()) wrong(source, "the merge key << takes a map (an alias like *name)");
    for (const auto& [key, value] : pairs(source)) set(all, key, value, false);
  }

  std::string file_;
  int depth_ = 0;
  int64_t read_ = 0;
};

// An entry's parameters as JSON text. A parameter that is null is left at its default; that of
// q_quantiles is not null (legacy.cpp), so a null there says something.
std::string parameters_of(Reader& reader, const YAML::Node& node, const std::string& entry) {
  json value = reader.value(node);
  if (value.is_null()) return "null";
  if (!value.is_object())
    reader.wrong(node, "'{}' takes a map of parameters, or null to leave it alone", shown(entry));
  json set = json::object();
  for (const auto& [key, parameter] : value.items()) {
    if (!parameter.is_null() || key == "q_quantiles") set[key] = parameter;
  }
  return set.dump();
}

void read_entries(Reader& reader, const YAML::Node& map, LegacyYaml& file) {
  if (!map.IsMap()) reader.wrong(map, "layer_name_to_config takes a map from names to parameters");
  for (const auto& [key, value] : reader.pairs(map)) {
    const std::string name = key.Scalar();
    std::string parameters = parameters_of(reader, value, name);
    if (name == "default") {
      file.fallback = std::move(parameters);
    } else {
      file.entries.push_back({name, std::move(parameters), line_of(key)});
    }
  }
}

std::string rule_file_text(const std::filesystem::path& path) {
  std::ifstream stream(path, std::ios::binary);
  if (!stream)
    fail_usage("can't read the rule file '{}': no such file, or no permission", path.string());
  std::string text{std::istreambuf_iterator<char>(stream), std::istreambuf_iterator<char>()};
  // The library below takes any bytes for text, and a rule's parameters become JSON.
  if (!is_valid_utf8(text)) fail_usage("{}: the rule file is not UTF-8 text", path.string());
  return text;
}

[[noreturn]] void fail_at(const std::filesystem::path& path, const YAML::Exception& error) {
  fail_usage("{}, line {}, column {}: {}", path.string(), error.mark.line + 1,
             error.mark.column + 1, shown(error.msg));
}

}  // namespace

std::string legacy_yaml_tree(const std::filesystem::path& path) {
  const std::string text = rule_file_text(path);
  Reader reader(path.string());
  try {
    const YAML::Node root = YAML::Load(text);
    if (!root.IsMap()) fail_usage("{}: it is not a map of settings", path.string());
    return reader.value(root).dump();
  } catch (const YAML::Exception& error) {
    fail_at(path, error);
  }
}

bool legacy_yaml_has(const std::filesystem::path& path, const std::string& key) {
  try {
    const YAML::Node root = YAML::Load(rule_file_text(path));
    return root.IsMap() && root[key].IsDefined();
  } catch (const YAML::Exception&) {
    return false;
  } catch (const Error&) {
    return false;
  }
}

LegacyYaml read_legacy_yaml(const std::filesystem::path& path) {
  const std::string text = rule_file_text(path);
  Reader reader(path.string());
  LegacyYaml file;
  try {
    const YAML::Node root = YAML::Load(text);
    if (!root.IsMap())
      fail_usage("{}: it is not a rule file; write use_regex and layer_name_to_config",
                 path.string());
    bool has_entries = false;
    for (const auto& [key, value] : reader.pairs(root)) {
      const std::string name = key.Scalar();
      if (name == "use_regex") {
        const json given = reader.value(value);
        if (!given.is_boolean()) reader.wrong(value, "use_regex takes true or false");
        file.use_regex = given.get<bool>();
      } else if (name == "transform_flavor") {
        const json given = reader.value(value);
        if (given != json("fc"))
          reader.wrong(value, "transform_flavor takes fc, the linear layers with bit flips");
        file.flavor = "fc";
      } else if (name == "layer_name_to_config") {
        read_entries(reader, value, file);
        has_entries = true;
      } else if (!value.IsMap()) {  // a map is where others may keep what their aliases name
        reader.wrong(key, "unknown key '{}'; did you mean '{}'?", shown(name),
                     nearest_name(name, {"use_regex", "layer_name_to_config", "transform_flavor"}));
      }
    }
    if (!has_entries) fail_usage("{}: layer_name_to_config is missing", path.string());
  } catch (const YAML::Exception& error) {
    fail_at(path, error);
  }
  return file;
}

}  // namespace refract
