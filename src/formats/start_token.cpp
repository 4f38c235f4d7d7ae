#include "formats/start_token.h"

#include <nlohmann/json.hpp>
#include <optional>

#include "core/untrusted.h"

namespace refract {
namespace {

std::optional<TokenId> bos_in(const std::string& text) {
  const nlohmann::json tree = try_parse_json(text).value_or(nlohmann::json());
  if (!tree.is_object() || !tree.contains("bos_token_id")) return std::nullopt;
  const nlohmann::json& id = tree["bos_token_id"];
  if (!id.is_number_integer() || id.get<int64_t>() < 0 || id.get<int64_t>() > INT32_MAX)
    return std::nullopt;
  return id.get<TokenId>();
}

}  // namespace

TokenId start_token(const Carried& carried, const Tokenizer& tokenizer) {
  for (const std::string& text : {carried.generation, carried.config}) {
    if (const auto bos = bos_in(text)) return *bos;
  }
  return tokenizer.end_of_text().value_or(0);
}

}  // namespace refract
