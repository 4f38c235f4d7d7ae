#include "text/sentencepiece/space_prefix.h"

#include <nlohmann/json.hpp>
#include <string>

namespace refract {

SpacePrefix space_prefix(const TokenizerSettings& settings, const nlohmann::json& translation) {
  if (settings.add_prefix_space == false) return SpacePrefix::kNever;
  if (settings.tokenizer_class == "LlamaTokenizer")
    return settings.legacy ? SpacePrefix::kUnlessSpace : SpacePrefix::kFirst;
  if (translation.is_null()) return SpacePrefix::kFirst;
  const nlohmann::json front = translation.value("pre_tokenizer", nlohmann::json());
  if (!front.is_object() || front.value("type", "") != "Metaspace") return SpacePrefix::kAlways;
  const std::string scheme = front.value("prepend_scheme", "always");
  if (scheme == "first") return SpacePrefix::kFirst;
  return scheme == "never" ? SpacePrefix::kNever : SpacePrefix::kUnlessSpace;
}

}  // namespace refract
