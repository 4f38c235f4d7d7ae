#include "serve/api_error.h"

#include <nlohmann/json.hpp>

namespace refract {
namespace {

const char* type_of(int status) {
  switch (status) {
    case 401:
      return "authentication_error";
    case 403:
      return "permission_error";
    case 404:
    case 405:
      return "not_found_error";
    case 429:
      return "rate_limit_error";
    default:
      return status >= 500 ? "server_error" : "invalid_request_error";
  }
}

}  // namespace

std::string error_body(int status, std::string_view message, std::string_view param) {
  nlohmann::json error = {
      {"message", message}, {"type", type_of(status)}, {"param", nullptr}, {"code", status}};
  if (!param.empty()) error["param"] = param;
  return nlohmann::json{{"error", error}}.dump(-1, ' ', false,
                                               nlohmann::json::error_handler_t::replace);
}

std::string ApiError::body() const { return error_body(status_, what(), param_); }

}  // namespace refract
