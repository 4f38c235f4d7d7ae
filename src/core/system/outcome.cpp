#include "core/system/outcome.h"

#include <signal.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <exception>
#include <filesystem>
#include <iostream>
#include <new>
#include <nlohmann/json.hpp>
#include <system_error>

#include "core/progress.h"
#include "core/untrusted.h"

namespace refract {
namespace {

constexpr const char* kOutOfMemory =
    "out of memory; a smaller train.batch, train.micro_batch or model may fit";
constexpr size_t kLongestMessage = 4000;

// What a failure that none of our own checks foresaw comes to. Libraries' texts are for their
// authors: of those that name a file or a place the name is kept.
std::string unforeseen(const std::exception& error) {
  if (const auto* files = dynamic_cast<const std::filesystem::filesystem_error*>(&error)) {
    return fmt::format("can't use '{}': {}", files->path1().string(), files->code().message());
  }
  if (dynamic_cast<const nlohmann::json::exception*>(&error) != nullptr)
    return "a JSON or TOML file that was read has a value of another form than it should have";
  if (const auto* system = dynamic_cast<const std::system_error*>(&error))
    return fmt::format("the system refused a call: {}", system->code().message());
  const std::string text = error.what();
  if (text.find("can't allocate memory") != std::string::npos ||
      text.find("CUDA out of memory") != std::string::npos) {
    return kOutOfMemory;
  }
  // torch puts a stack trace behind the first line.
  return fmt::format("stopped by an error that this program has no better words for: {}",
                     shown(text.substr(0, text.find('\n'))));
}

int output_error = 0;  // of a write to standard output that threw

}  // namespace

int report_failure(const std::string& message, ExitCode code) {
  clear_progress_line();
  std::fprintf(stderr, "refract: %s\n", shown(message, kLongestMessage).c_str());
  return static_cast<int>(code);
}

int guarded(const std::function<int()>& action) {
  try {
    return action();
  } catch (const Error& error) {
    return report_failure(error.what(), error.code());
  } catch (const std::bad_alloc&) {
    return report_failure(kOutOfMemory, ExitCode::kFailed);
  } catch (const std::exception& error) {
    if (std::ferror(stdout) != 0) {  // finish_output() says it
      const auto* system = dynamic_cast<const std::system_error*>(&error);
      output_error = system ? system->code().value() : 0;
      return static_cast<int>(ExitCode::kFailed);
    }
    return report_failure(unforeseen(error), ExitCode::kFailed);
  }
}

int finish_output(int code) {
  errno = 0;
  std::cout.clear();  // its buffer is that of stdout, which keeps its own mark of a failure
  std::cout.flush();
  const bool failed = std::fflush(stdout) != 0 || std::ferror(stdout) != 0 || !std::cout;
  if (!failed) return code;
  // A buffer that was given up left no number behind: what any further byte comes to.
  if (errno == 0 && output_error == 0 && std::fputc('\n', stdout) != EOF) std::fflush(stdout);
  const int error = errno != 0 ? errno : output_error;
  if (error == EPIPE) {  // the reader has seen enough, as of `| head`: end as other programs do
    ::signal(SIGPIPE, SIG_DFL);
    ::raise(SIGPIPE);
  }
  report_failure(error != 0
                     ? fmt::format("can't write to standard output: {}", std::strerror(error))
                     : "can't write to standard output",
                 ExitCode::kFailed);
  return code == 0 ? static_cast<int>(ExitCode::kFailed) : code;
}

}  // namespace refract
