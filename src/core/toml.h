// TOML text to and from JSON values, the neutral form of the settings.
#pragma once
#include <filesystem>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>

namespace refract {

// Reads a TOML document; `where` names it in errors, which carry line and column.
nlohmann::json parse_toml(std::string_view text, std::string_view where);
nlohmann::json read_toml(const std::filesystem::path& path);

// Writes nested objects as tables and arrays of objects as arrays of tables.
std::string to_toml(const nlohmann::json& tree);
// One value as it would stand behind "key = ".
std::string to_toml_value(const nlohmann::json& value);

}  // namespace refract
