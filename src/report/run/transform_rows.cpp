#include "report/run/transform_rows.h"

#include <charconv>
#include <nlohmann/json.hpp>
#include <sstream>
#include <string_view>
#include <system_error>

#include "core/files.h"
#include "core/toml.h"

namespace refract {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

// Takes the word from the front of the line.
bool take(std::string_view& line, std::string_view word) {
  if (!line.starts_with(word)) return false;
  line.remove_prefix(word.size());
  return true;
}

// Takes a count from the front of the line.
bool take(std::string_view& line, int64_t& count) {
  const auto [end, error] = std::from_chars(line.data(), line.data() + line.size(), count);
  if (error != std::errc() || count < 0) return false;
  line.remove_prefix(static_cast<size_t>(end - line.data()));
  return true;
}

// The comments that transforms_toml() of the transforms writes before each rule:
//     # 24 modules, 393216 -> 12288 parameters
//     # left alone: 4 modules, 65536 -> 65536 parameters
bool read_comment(std::string_view line, TransformRow& row, bool& left_alone) {
  if (!take(line, "# ")) return false;
  left_alone = take(line, "left alone: ");
  if (!take(line, row.modules) || !take(line, " module")) return false;
  take(line, "s");
  return take(line, ", ") && take(line, row.dense_parameters) && take(line, " -> ") &&
         take(line, row.parameters) && line == " parameters";
}

std::string text_of(const json& rule, const char* key) {
  const auto found = rule.find(key);
  return found != rule.end() && found->is_string() ? found->get<std::string>() : "";
}

}  // namespace

std::vector<TransformRow> read_transform_rows(const fs::path& path) {
  if (!fs::exists(path)) return {};
  const std::string text = read_file(path, "the transforms");
  const json tree = parse_toml(text, path.string());
  const json rules = tree.value("transform", json());
  const size_t count = rules.is_array() ? rules.size() : 0;
  std::vector<TransformRow> rows;
  size_t rule = 0;
  std::istringstream lines(text);
  for (std::string line; std::getline(lines, line);) {
    TransformRow row;
    bool left_alone = false;
    if (!read_comment(line, row, left_alone)) continue;
    if (!left_alone && rule < count) {
      row.match = text_of(rules[rule], "match");
      row.kind = text_of(rules[rule], "kind");
      ++rule;
    }
    rows.push_back(row);
  }
  return rows;
}

}  // namespace refract
