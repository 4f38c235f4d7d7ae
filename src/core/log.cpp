#include "core/log.h"

#include <spdlog/sinks/basic_file_sink.h>
#include <spdlog/sinks/stdout_sinks.h>
#include <spdlog/spdlog.h>

#include "core/error.h"
#include "core/progress.h"

namespace refract {
namespace {

spdlog::logger& terminal() {
  static auto logger = [] {
    auto sink = std::make_shared<spdlog::sinks::stderr_sink_mt>();
    auto made = std::make_shared<spdlog::logger>("terminal", sink);
    made->set_pattern("%v");
    return made;
  }();
  return *logger;
}

std::shared_ptr<spdlog::logger>& file() {
  static std::shared_ptr<spdlog::logger> logger;
  return logger;
}

bool on_terminal = true;

}  // namespace

void log_message(LogLevel level, const std::string& message) {
  const std::string text = level == LogLevel::kWarning ? "warning: " + message : message;
  if (on_terminal) {
    clear_progress_line();
    terminal().info(text);
  }
  log_quietly(text);
}

void log_to_file_only() { on_terminal = false; }
bool logs_to_terminal() { return on_terminal; }

void log_quietly(const std::string& message) {
  if (file()) file()->info(message);
}

void log_to_file(const std::filesystem::path& path) {
  try {
    auto sink = std::make_shared<spdlog::sinks::basic_file_sink_mt>(path.string());
    file() = std::make_shared<spdlog::logger>("file", sink);
    file()->set_pattern("%Y-%m-%d %H:%M:%S %v");
    file()->flush_on(spdlog::level::info);
  } catch (const spdlog::spdlog_ex& error) {
    fail("can't write the log '{}': {}", path.string(), error.what());
  }
}

}  // namespace refract
