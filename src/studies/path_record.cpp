#include "studies/path_record.h"

#include <algorithm>
#include <cstdint>
#include <limits>
#include <nlohmann/json.hpp>
#include <utility>

#include "core/untrusted.h"

namespace refract {
namespace {

using nlohmann::json;

double number(const json& value) {
  return value.is_null() ? std::numeric_limits<double>::quiet_NaN() : value.get<double>();
}

}  // namespace

PathResult path_from_json(const json& tree) {
  PathResult result;
  result.alphas = tree.at("alphas").get<std::vector<double>>();
  result.engine = tree.value("engine", "");
  result.geometry.norm_a = number(tree.at("norm_a"));
  result.geometry.norm_b = number(tree.at("norm_b"));
  result.geometry.distance = number(tree.at("distance"));
  // The cosine is made from it again, to the last bit.
  result.geometry.dot = tree.contains("dot") ? number(tree.at("dot"))
                                             : number(tree.at("cosine")) * result.geometry.norm_a *
                                                   result.geometry.norm_b;
  for (const auto& [name, split] : tree.at("splits").items()) {
    PathSplit read{name, {}};
    for (size_t i = 0; i < result.alphas.size(); ++i) {
      read.points.push_back({number(split.at("loss").at(i)), number(split.at("accuracy").at(i)),
                             split.at("tokens").get<int64_t>()});
    }
    result.splits.push_back(std::move(read));
  }
  return result;
}

std::optional<PathResult> read_path(std::string_view text, const json& measured_with,
                                    const std::vector<std::string>& splits, size_t points) {
  const std::optional<json> saved = try_parse_json(text);
  if (!saved || !saved->is_object() || saved->value("measured_with", json()) != measured_with)
    return std::nullopt;
  try {
    PathResult path = path_from_json(*saved);
    const std::vector<PathSplit> read = std::exchange(path.splits, {});
    for (const std::string& name : splits) {
      const auto split = std::ranges::find(read, name, &PathSplit::name);
      if (split == read.end()) return std::nullopt;
      path.splits.push_back(*split);
    }
    return path.alphas.size() == points ? std::optional(path) : std::nullopt;
  } catch (const json::exception&) {
    return std::nullopt;
  }
}

}  // namespace refract
