// Continuing texts: prompts become tokens, and what a model makes of them text again.
#pragma once
#include <functional>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "decode/generate.h"

namespace refract {

struct Continuation {
  std::string text;  // without the prompt
  std::vector<TokenId> tokens;
};

// All prompts together. An empty one begins with the token `start`.
std::vector<Continuation> continue_texts(Decoder& model, const Tokenizer& tokenizer,
                                         const std::vector<std::string>& prompts, TokenId start,
                                         const SamplingOptions& sampling,
                                         const DecodeOptions& options);

// {"prompt", "text", "tokens"} of one, {"samples": [...]} of several.
nlohmann::json samples_json(const std::vector<std::string>& prompts,
                            const std::vector<Continuation>& made);

// One prompt; `write` gets the text piece by piece while it grows.
void continue_text(Decoder& model, const Tokenizer& tokenizer, const std::string& prompt,
                   TokenId start, const SamplingOptions& sampling, DecodeOptions options,
                   const std::function<void(std::string_view)>& write);

}  // namespace refract
