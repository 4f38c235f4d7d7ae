// Where transformers puts a space before text that a SentencePiece model cuts.
#pragma once
#include <nlohmann/json_fwd.hpp>

#include "text/hf_settings.h"

namespace refract {

// Before which stretches of text between added tokens; kUnlessSpace: before each, but behind an
// added token only where none stands there.
enum class SpacePrefix { kAlways, kUnlessSpace, kFirst, kNever };

// `translation` is the tokenizer.json beside the model, null where there is none.
SpacePrefix space_prefix(const TokenizerSettings& settings, const nlohmann::json& translation);

}  // namespace refract
