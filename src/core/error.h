// The one exception type of the program. A message says what is wrong, where, and what to do about
// it.
#pragma once
#include <fmt/format.h>

#include <stdexcept>
#include <string>

namespace refract {

// Exit codes of the program: 0 success, 1 a run failed, 2 the request itself was wrong.
enum class ExitCode { kOk = 0, kFailed = 1, kUsage = 2 };

class Error : public std::runtime_error {
 public:
  explicit Error(const std::string& message, ExitCode code = ExitCode::kFailed)
      : std::runtime_error(message), code_(code) {}
  ExitCode code() const { return code_; }

 private:
  ExitCode code_;
};

// Throws Error (exit code 1): something that was asked for could not be done.
template <class... Args>
[[noreturn]] void fail(fmt::format_string<Args...> format, Args&&... args) {
  throw Error(fmt::format(format, std::forward<Args>(args)...));
}

// Throws Error (exit code 2): the request can't be right, whatever the state of the machine.
template <class... Args>
[[noreturn]] void fail_usage(fmt::format_string<Args...> format, Args&&... args) {
  throw Error(fmt::format(format, std::forward<Args>(args)...), ExitCode::kUsage);
}

}  // namespace refract
