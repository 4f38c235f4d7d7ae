// What `refract kinds` says of the kinds of layers that rules can name.
#pragma once
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

namespace refract {

// An object each: kind, summary, stands_for, parameters (name, type, limits, default, help). Of the
// kind of this name, or of all of them with "none" where the name is empty. Fails (usage) for a
// name that no kind has.
std::vector<nlohmann::json> list_kinds(const std::string& name);
// As a table of all, and as one with the parameters of one.
std::string kinds_text(const std::vector<nlohmann::json>& kinds);
std::string kind_text(const nlohmann::json& kind);

}  // namespace refract
