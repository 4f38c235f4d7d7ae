// What comes from files that nobody vouches for: JSON whose nesting is bounded, and text that is
// fit to stand in a message.
#pragma once
#include <concepts>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <string_view>

namespace refract {

// How deep objects, arrays, tables, aliases and brackets may nest in any file that is read. What
// reads, copies, prints and frees such a tree calls itself once per level.
inline constexpr int kMaxDepth = 100;

// The text as a message may show it: control characters and bytes that are no UTF-8 as escapes
// (\n, \x1b), cut behind `limit` characters with the number of bytes that are left out.
std::string shown(std::string_view text, size_t limit = 200);
// A JSON value in the same way. A template, because any text would do for a JSON value.
std::string shown_json(const nlohmann::json& value);
template <std::same_as<nlohmann::json> Json>
std::string shown(const Json& value) {
  return shown_json(value);
}

enum class JsonKeys {
  kLastWins,  // of a key that stands twice in an object, as JSON readers usually do
  kOnce,      // such a key is an error
};

// Reads one JSON document in time linear in its size. Fails for a text that is not JSON, with the
// place where it stops being so, and for one nested deeper than kMaxDepth; `where` names the text
// in the error ("'config.json'").
nlohmann::json parse_json(std::string_view text, std::string_view where,
                          JsonKeys keys = JsonKeys::kLastWins);

// The same, or nothing in place of an error.
std::optional<nlohmann::json> try_parse_json(std::string_view text);

}  // namespace refract
