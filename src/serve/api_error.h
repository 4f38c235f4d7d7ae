// A request that gets an error for an answer.
#pragma once
#include <fmt/format.h>

#include <stdexcept>
#include <string>
#include <string_view>

namespace refract {

class ApiError : public std::runtime_error {
 public:
  // `param` names the part of the request that is wrong, where one is.
  ApiError(int status, const std::string& message, std::string param = "")
      : std::runtime_error(message), status_(status), param_(std::move(param)) {}
  int status() const { return status_; }
  // {"error":{"message","type","param","code"}}, as OpenAI's protocol has it.
  std::string body() const;

 private:
  int status_;
  std::string param_;
};

// The body of an error of this HTTP status.
std::string error_body(int status, std::string_view message, std::string_view param = "");

// Throws ApiError 400: the request can't be right.
template <class... Args>
[[noreturn]] void refuse(std::string_view param, fmt::format_string<Args...> format,
                         Args&&... args) {
  throw ApiError(400, fmt::format(format, std::forward<Args>(args)...), std::string(param));
}

}  // namespace refract
