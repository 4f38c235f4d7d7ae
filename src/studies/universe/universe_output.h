// Models in a common frame as numbers, files and pictures.
#pragma once
#include <filesystem>
#include <nlohmann/json_fwd.hpp>
#include <string>

#include "studies/universe/universe.h"

namespace refract {

// {"models", "split", "tokens", "rounds", "spread_before", "spread_after", "distances", "losses",
// "barycentre": {"before", "after"}, "barriers": {"before", "after"}} with losses in nats per
// token; what is not finite is null.
nlohmann::json universe_json(const UniverseResult& result);
std::string universe_text(const UniverseResult& result);
// universe.json and report.html.
void write_universe(const UniverseResult& result, const std::filesystem::path& folder);

}  // namespace refract
