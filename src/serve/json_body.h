// The members of a request's JSON object, each checked. Every error is an ApiError 400 that names
// the member. A member that is null counts as absent.
#pragma once
#include <cstdint>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "text/tokenizer.h"

namespace refract {

class JsonBody {
 public:
  explicit JsonBody(std::string_view text);
  ~JsonBody();
  JsonBody(const JsonBody&) = delete;
  JsonBody& operator=(const JsonBody&) = delete;

  // Fails for a member of another name, with the nearest one.
  void allow_only(const std::vector<std::string>& names) const;
  bool has(const std::string& name) const;
  const nlohmann::json& at(const std::string& name) const;

  int64_t integer(const std::string& name, int64_t absent, int64_t low, int64_t high) const;
  double number(const std::string& name, double absent, double low, double high) const;
  bool flag(const std::string& name, bool absent) const;
  std::string text(const std::string& name, const std::string& absent) const;

 private:
  std::unique_ptr<nlohmann::json> tree_;
};

// The ids of an array of them, each from 0 to vocabulary - 1.
std::vector<TokenId> token_ids(const nlohmann::json& array, const std::string& name,
                               int64_t vocabulary);

}  // namespace refract
