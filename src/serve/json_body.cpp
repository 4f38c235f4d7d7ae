#include "serve/json_body.h"

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

#include "core/config.h"
#include "core/error.h"
#include "core/untrusted.h"
#include "serve/api_error.h"

namespace refract {
namespace {

nlohmann::json parsed(std::string_view text) {
  try {
    return parse_json(text, "the request's body");
  } catch (const Error& error) {
    throw ApiError(400, error.what());
  }
}

}  // namespace

JsonBody::JsonBody(std::string_view text) : tree_(std::make_unique<nlohmann::json>(parsed(text))) {
  if (!tree_->is_object()) refuse("", "the request's body must be a JSON object");
}
JsonBody::~JsonBody() = default;

void JsonBody::allow_only(const std::vector<std::string>& names) const {
  for (const auto& [name, value] : tree_->items()) {
    if (std::find(names.begin(), names.end(), name) != names.end()) continue;
    refuse(shown(name, 60), "there is no '{}'; did you mean '{}'?", shown(name, 60),
           nearest_name(name.substr(0, 60), names));
  }
}

bool JsonBody::has(const std::string& name) const {
  const auto found = tree_->find(name);
  return found != tree_->end() && !found->is_null();
}

const nlohmann::json& JsonBody::at(const std::string& name) const { return tree_->at(name); }

int64_t JsonBody::integer(const std::string& name, int64_t absent, int64_t low,
                          int64_t high) const {
  if (!has(name)) return absent;
  const nlohmann::json& value = at(name);
  const bool fits = value.is_number_integer() &&
                    (!value.is_number_unsigned() || value.get<uint64_t>() <= INT64_MAX);
  if (!fits || value.get<int64_t>() < low || value.get<int64_t>() > high) {
    refuse(name, "{} must be an integer from {} to {}, not {}", name, low, high, shown(value));
  }
  return value.get<int64_t>();
}

double JsonBody::number(const std::string& name, double absent, double low, double high) const {
  if (!has(name)) return absent;
  const nlohmann::json& value = at(name);
  if (!value.is_number() || !(value.get<double>() >= low && value.get<double>() <= high))
    refuse(name, "{} must be a number from {} to {}, not {}", name, low, high, shown(value));
  return value.get<double>();
}

bool JsonBody::flag(const std::string& name, bool absent) const {
  if (!has(name)) return absent;
  if (!at(name).is_boolean())
    refuse(name, "{} must be true or false, not {}", name, shown(at(name)));
  return at(name).get<bool>();
}

std::string JsonBody::text(const std::string& name, const std::string& absent) const {
  if (!has(name)) return absent;
  if (!at(name).is_string()) refuse(name, "{} must be a text, not {}", name, shown(at(name)));
  return at(name).get<std::string>();
}

std::vector<TokenId> token_ids(const nlohmann::json& array, const std::string& name,
                               int64_t vocabulary) {
  if (!array.is_array()) refuse(name, "{} must be an array of token ids", name);
  std::vector<TokenId> tokens;
  tokens.reserve(array.size());
  for (const nlohmann::json& id : array) {
    const bool fits = id.is_number_integer() &&
                      (!id.is_number_unsigned() || id.get<uint64_t>() <= INT32_MAX) &&
                      id.get<int64_t>() >= 0 && id.get<int64_t>() < vocabulary;
    if (!fits)
      refuse(name, "{} holds {}, which is no token id (0 to {})", name, shown(id), vocabulary - 1);
    tokens.push_back(id.get<TokenId>());
  }
  return tokens;
}

}  // namespace refract
