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
// From here on messages go to the file alone, and no progress is drawn: for one of several
// processes that share a terminal.
void log_to_file_only();
bool logs_to_terminal();
// To the file alone, where there is one: what the terminal is told in another way.
void log_quietly(const std::string& message);

template <class... Args>
void log_info(fmt::format_string<Args...> format, Args&&... args) {
  log_message(LogLevel::kInfo, fmt::format(format, std::forward<Args>(args)...));
}
template <class... Args>
void log_warning(fmt::format_string<Args...> format, Args&&... args) {
  log_message(LogLevel::kWarning, fmt::format(format, std::forward<Args>(args)...));
}

}  // namespace refract
