// Continuing prompts with a KV cache: several at a time, on CUDA as one captured graph per token.
#pragma once
#include <cstdint>
#include <functional>
#include <vector>

#include "decode/sampling.h"
#include "model/decoder.h"

namespace refract {

// The tokens of a prompt; of an empty one `start`, since generation needs something to start from.
std::vector<TokenId> prompt_tokens(const Tokenizer& tokenizer, const std::string& text,
                                   TokenId start);

struct DecodeOptions {
  bool cuda_graph = false;  // capture the step of a token, where the model follows KvCache::lengths
  std::function<void(int64_t prompt, TokenId)> on_token;  // called with every new token, in turn
};

// Continues prompts (each of at least one token), whatever their lengths, and returns the new
// tokens of each: the same as each alone, up to rounding. Where a sequence reaches the model's
// longest, it goes on with the second half of what it has seen. Prompt i draws its own random
// numbers from (seed, i).
std::vector<std::vector<TokenId>> generate_batch(Decoder& model,
                                                 const std::vector<std::vector<TokenId>>& prompts,
                                                 const SamplingOptions& sampling,
                                                 const DecodeOptions& options = {});
// One prompt.
std::vector<TokenId> generate(Decoder& model, const std::vector<TokenId>& prompt,
                              const SamplingOptions& sampling,
                              const std::function<void(TokenId)>& on_token = {});

}  // namespace refract
