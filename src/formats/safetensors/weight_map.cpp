#include "formats/safetensors/weight_map.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "core/error.h"
#include "core/untrusted.h"

namespace refract {
namespace {

constexpr size_t kLongest = 255;  // bytes that file systems allow

bool is_file_name(std::string_view name) {
  return !name.empty() && name.size() <= kLongest && name != "." && name != ".." &&
         name.find('/') == std::string_view::npos && name.find('\0') == std::string_view::npos;
}

}  // namespace

std::map<std::string, std::string> read_weight_map(std::string_view text,
                                                   const std::filesystem::path& path) {
  const nlohmann::json index = parse_json(text, fmt::format("'{}'", path.string()));
  if (!index.is_object() || !index.contains("weight_map") || !index["weight_map"].is_object())
    fail("'{}' is damaged: it has no weight_map", path.string());
  std::map<std::string, std::string> files;
  for (const auto& [tensor, file] : index["weight_map"].items()) {
    if (!file.is_string())
      fail("'{}' is damaged: tensor '{}' names no file", path.string(), shown(tensor));
    const auto& name = file.get_ref<const std::string&>();
    if (!is_file_name(name)) {
      fail("'{}': tensor '{}' is said to be in '{}', which is not a file of this folder",
           path.string(), shown(tensor), shown(name));
    }
    files[tensor] = name;
  }
  return files;
}

}  // namespace refract
