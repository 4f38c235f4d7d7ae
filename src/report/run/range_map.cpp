#include "report/run/range_map.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <string>
#include <string_view>
#include <utility>

namespace refract {
namespace {

// Of "model.layers.11.mlp.up_proj" and "x_range": row "11", column "up_proj, x".
std::pair<std::string, std::string> place_of(const RangeTrack& track) {
  constexpr std::string_view kLayers = "model.layers.", kRange = "_range", kAttention = "self_attn";
  std::string row = "other", module = track.module, role = track.role;
  if (module.starts_with(kLayers)) {
    const size_t dot = module.find('.', kLayers.size());
    row = module.substr(kLayers.size(), dot - kLayers.size());
    module = dot == std::string::npos ? "" : module.substr(dot + 1);
  }
  module = module.substr(module.rfind('.') + 1);
  if (role.ends_with(kRange)) role.resize(role.size() - kRange.size());
  // An attention's roles name it themselves.
  if (module == kAttention) return {row, role};
  return {row, module.empty() ? role : module + ", " + role};
}

size_t index_of(std::vector<std::string>& names, const std::string& name) {
  const auto found = std::ranges::find(names, name);
  if (found == names.end()) {
    names.push_back(name);
    return names.size() - 1;
  }
  return static_cast<size_t>(found - names.begin());
}

}  // namespace

MatrixSpec range_map(const std::vector<RangeTrack>& ranges) {
  constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();
  constexpr size_t kMostWithValues = 400;  // cells; more would not be read
  MatrixSpec map{.title = "Larger end of each range, max(|low|, |high|), newest checkpoint",
                 .row_label = "layer",
                 .digits = 2,
                 .log_colors = true};
  for (const RangeTrack& track : ranges) {
    const auto [row, column] = place_of(track);
    index_of(map.rows, row);
    index_of(map.columns, column);
  }
  map.values.assign(map.rows.size(), std::vector<double>(map.columns.size(), kNaN));
  for (const RangeTrack& track : ranges) {
    const auto [row, column] = place_of(track);
    map.values[index_of(map.rows, row)][index_of(map.columns, column)] =
        std::max(std::abs(track.low.back()), std::abs(track.high.back()));
  }
  map.show_values = map.rows.size() * map.columns.size() <= kMostWithValues;
  map.height = static_cast<int>(std::min<size_t>(1400, 190 + 26 * map.rows.size()));
  return map;
}

}  // namespace refract
