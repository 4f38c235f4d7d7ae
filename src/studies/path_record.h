// A measured path, read from the path.json of path_json().
#pragma once
#include <cstddef>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "studies/path_output.h"

namespace refract {

// Reads what path_json() wrote; null numbers come back as NaN. Throws json::exception for anything
// else.
PathResult path_from_json(const nlohmann::json& tree);

// The path that the text holds, with these splits in this order and so many points; none where it
// is damaged, or its "measured_with" is another.
std::optional<PathResult> read_path(std::string_view text, const nlohmann::json& measured_with,
                                    const std::vector<std::string>& splits, size_t points);

}  // namespace refract
