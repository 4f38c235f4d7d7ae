// A request and its answer, apart from how they travel.
#pragma once
#include <functional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace refract {

struct HttpCall {
  std::string method, path, body;
  std::function<bool()> gone;  // whether the client went away
};

struct HttpAnswer {
  int status = 200;
  std::string type = "application/json";
  std::string body;
  std::vector<std::pair<std::string, std::string>> headers;
  // Writes a piece of the body; false: the client can't be reached.
  using Write = std::function<bool(std::string_view)>;
  // Where it is set it writes the body piece by piece; false: the answer broke off.
  std::function<bool(const Write&)> stream;
};

}  // namespace refract
