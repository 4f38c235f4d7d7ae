#include "text/json_trouble.h"

#include <nlohmann/json.hpp>

namespace refract {

std::string json_trouble(const std::exception& error) {
  std::string text = error.what();
  if (dynamic_cast<const nlohmann::json::parse_error*>(&error) != nullptr) {
    if (text.find("unexpected end of input") != std::string::npos ||
        text.find("missing closing quote") != std::string::npos)
      return "it is cut off: its JSON ends early";
    const size_t begin = text.find("line "), end = text.find(':', begin);
    if (begin == std::string::npos || end == std::string::npos) return "it is no JSON";
    return text.substr(begin, end - begin) + " is no JSON";
  }
  if (dynamic_cast<const nlohmann::json::exception*>(&error) != nullptr)
    return "a value in it is missing or has another form than it should";
  return text;
}

}  // namespace refract
