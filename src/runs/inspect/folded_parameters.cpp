#include "runs/inspect/folded_parameters.h"

#include <fmt/format.h>

#include <string_view>
#include <utility>

namespace refract {
namespace {

constexpr std::string_view kLayers = "model.layers.";

// What belongs together: a decoder layer, or all that stands between two of them.
struct Group {
  std::string index;  // of the layer; empty: no layer
  std::vector<std::pair<std::string, std::vector<int64_t>>> members;  // name behind the index
};

// "model.layers.3.mlp.up_proj.weight" -> "3" and ".mlp.up_proj.weight"; another name -> "" and it.
std::pair<std::string, std::string> split(const std::string& name) {
  if (!name.starts_with(kLayers)) return {"", name};
  const size_t dot = name.find('.', kLayers.size());
  return {name.substr(kLayers.size(), dot - kLayers.size()), name.substr(dot)};
}

std::vector<Group> grouped(const std::deque<Parameter>& parameters) {
  std::vector<Group> groups;
  for (const Parameter& parameter : parameters) {
    auto [index, rest] = split(parameter.name);
    if (groups.empty() || groups.back().index != index) groups.push_back({index, {}});
    groups.back().members.emplace_back(std::move(rest), parameter.shape);
  }
  return groups;
}

}  // namespace

std::vector<FoldedParameter> fold_layers(const std::deque<Parameter>& parameters) {
  const std::vector<Group> groups = grouped(parameters);
  std::vector<FoldedParameter> folded;
  for (size_t first = 0; first < groups.size();) {
    const Group& group = groups[first];
    size_t end = first + 1;
    while (!group.index.empty() && end < groups.size() && !groups[end].index.empty() &&
           groups[end].members == group.members)
      ++end;
    std::string before;
    if (!group.index.empty()) {
      before = std::string(kLayers) + group.index;
      if (end > first + 1) before += "-" + groups[end - 1].index;
    }
    const auto copies = static_cast<int64_t>(end - first);
    for (const auto& [rest, shape] : group.members) {
      int64_t numbers = copies;
      for (const int64_t extent : shape) numbers *= extent;
      folded.push_back({before + rest, shape, copies, numbers});
    }
    first = end;
  }
  return folded;
}

}  // namespace refract
