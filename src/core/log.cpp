#include "core/log.h"

#include <spdlog/sinks/basic_file_sink.h>
#include <spdlog/sinks/stdout_sinks.h>
#include <spdlog/spdlog.h>

#include <mutex>
#include <utility>
#include <vector>

#include "core/error.h"
#include "core/progress.h"

namespace refract {
namespace {

// What is said before there is a log file, with its time: it goes into the file when that is
// opened, and a start that is refused has written nothing.
constexpr size_t kMostEarly = 1000;
std::vector<std::pair<spdlog::log_clock::time_point, std::string>> early_messages;
std::mutex mutex;

spdlog::logger& terminal() {
  static auto logger = [] {
    auto sink = std::make_shared<spdlog::sinks::stderr_sink_mt>();
    auto made = std::make_shared<spdlog::logger>("terminal", sink);
    made->set_pattern("%v");
    made->set_error_handler([](const std::string&) {});  // nobody is left to read it
    return made;
  }();
  return *logger;
}

std::shared_ptr<spdlog::logger>& file() {
  static std::shared_ptr<spdlog::logger> logger;
  return logger;
}

bool on_terminal = true;

void write(spdlog::log_clock::time_point time, const std::string& text) {
  file()->log(time, spdlog::source_loc{}, spdlog::level::info, spdlog::string_view_t(text));
}

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
  const std::lock_guard<std::mutex> lock(mutex);
  const auto now = spdlog::log_clock::now();
  if (file()) {
    write(now, message);
  } else if (early_messages.size() < kMostEarly) {
    early_messages.emplace_back(now, message);
  }
}

void log_to_file(const std::filesystem::path& path) {
  const std::lock_guard<std::mutex> lock(mutex);
  try {
    auto sink = std::make_shared<spdlog::sinks::basic_file_sink_mt>(path.string());
    file() = std::make_shared<spdlog::logger>("file", sink);
  } catch (const spdlog::spdlog_ex&) {
    fail("can't write the log '{}'; is the disk full, or the folder closed to you?", path.string());
  }
  file()->set_pattern("%Y-%m-%d %H:%M:%S %v");
  file()->flush_on(spdlog::level::info);
  // A run does not end for its log; the metrics say the same and are checked.
  file()->set_error_handler([said = false, path](const std::string&) mutable {
    if (!said) terminal().info("warning: can't write the log '{}'", path.string());
    said = true;
  });
  for (const auto& [time, text] : early_messages) write(time, text);
  early_messages.clear();
}

}  // namespace refract
