#include "train/together/layer_parts.h"

#include <algorithm>
#include <charconv>
#include <limits>
#include <map>
#include <optional>
#include <string>
#include <string_view>

namespace refract {
namespace {

constexpr size_t kHead = std::numeric_limits<size_t>::max();

std::optional<size_t> layer_of(std::string_view name) {
  if (name == "lm_head.weight") return kHead;
  constexpr std::string_view kPrefix = "model.layers.";
  if (!name.starts_with(kPrefix)) return std::nullopt;
  size_t layer = 0;
  const char* first = name.data() + kPrefix.size();
  const auto [end, error] = std::from_chars(first, name.data() + name.size(), layer);
  if (error != std::errc() || end == first) return std::nullopt;
  return layer;
}

}  // namespace

std::vector<Range> layer_parts(const ParameterArena& arena) {
  std::map<int64_t, const Parameter*> by_place;
  for (const Parameter& parameter : arena.parameters()) {
    if (parameter.trainable && parameter.offset < arena.matrix_size())
      by_place[parameter.offset] = &parameter;
  }
  // The longest run of neighbours of each layer. Padding behind a parameter belongs to it.
  std::map<size_t, Range> longest;
  std::optional<size_t> before;
  Range run;
  const auto close = [&](int64_t end) {
    if (!before) return;
    run.end = end;
    Range& part = longest[*before];
    if (run.size() >= std::max(kSmallestPart, part.size())) part = run;
  };
  for (const auto& [offset, parameter] : by_place) {
    const std::optional<size_t> layer = layer_of(parameter->name);
    if (layer != before) {
      close(offset);
      run.begin = offset;
      before = layer;
    }
  }
  close(std::min(arena.matrix_size(), arena.core_size()));
  Range head;
  if (const auto found = longest.extract(kHead)) head = found.mapped();
  if (longest.empty()) return {};
  std::vector<Range> parts(longest.rbegin()->first + 1);
  for (const auto& [layer, part] : longest) parts[layer] = part;
  parts.push_back(head);
  return parts;
}

}  // namespace refract
