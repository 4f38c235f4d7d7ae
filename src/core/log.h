// Messages for a person, on standard error. Standard output is for results.
#pragma once
#include <fmt/format.h>

#include <filesystem>
#include <string>

namespace refract {

enum class LogLevel { kInfo, kWarning };

void log_message(LogLevel level, const std::string& message);
// From here on messages also go to this file, with the time of day.
void log_to_file(const std::filesystem::path& path);

template <class... Args>
void log_info(fmt::format_string<Args...> format, Args&&... args) {
  log_message(LogLevel::kInfo, fmt::format(format, std::forward<Args>(args)...));
}
template <class... Args>
void log_warning(fmt::format_string<Args...> format, Args&&... args) {
  log_message(LogLevel::kWarning, fmt::format(format, std::forward<Args>(args)...));
}

}  // namespace refract
