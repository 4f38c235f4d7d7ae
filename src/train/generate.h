// Sampling from a model with a KV cache.
#pragma once
#include <cstdint>
#include <functional>
#include <optional>
#include <vector>

#include "model/decoder.h"
#include "text/tokenizer.h"

namespace refract {

struct SamplingOptions {
  int64_t max_tokens = 100;
  double temperature = 1;  // 0: the likeliest token
  int64_t top_k = 0;       // 0: all
  double top_p = 1;        // 1: all
  uint64_t seed = 1;
  std::optional<TokenId> stop;  // ends the sample and is not part of it
};

// The tokens of a prompt; of an empty one the end-of-text token, or id 0 where the tokenizer has
// none, since generation needs something to start from.
std::vector<TokenId> prompt_tokens(const Tokenizer& tokenizer, const std::string& text);

// Continues `prompt` (at least one token) and returns the new tokens. When the model's longest
// sequence is reached, it goes on with the second half of what it has seen. `on_token` is called
// with every new token.
std::vector<TokenId> generate(Decoder& model, const std::vector<TokenId>& prompt,
                              const SamplingOptions& options,
                              const std::function<void(TokenId)>& on_token = {});

// The index drawn from unnormalized log-probabilities with a uniform number u in [0, 1).
TokenId sample_token(std::vector<float> logits, const SamplingOptions& options, double u);

}  // namespace refract
