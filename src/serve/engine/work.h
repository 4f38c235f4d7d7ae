// What is asked of the model, and what comes back.
#pragma once
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "decode/sampling.h"

namespace refract {

// A token and how likely the model held it to be.
struct TokenScore {
  TokenId token = 0;
  std::optional<float> logprob;  // in nats; none of a prompt's first token, or where none is asked
  std::vector<std::pair<TokenId, float>> top;  // the likeliest in its place, in falling order
};

enum class End {
  kStop,       // a token that ends a text, which comes with it
  kLength,     // as many tokens as were asked for
  kCancelled,  // nobody wants it any more
  kCutOff,     // the server stops
  kFailed,     // the model could not
};

// Something that happened to one work of a request.
struct News {
  size_t index = 0;  // of the work in its request
  std::vector<TokenScore> prompt_scores;
  std::optional<TokenScore> token;
  std::optional<End> end;
  std::string message;  // with kFailed
};

class Inbox;

// One continuation to make, or the tokens of one prompt to score, or both.
struct Work {
  std::vector<TokenId> prompt;  // at least one
  SamplingOptions sampling;     // max_tokens 0: scores alone
  int64_t number = 0;           // it draws its random numbers from (seed, number)
  bool scores_prompt = false;
  int64_t logprobs =
      -1;  // the likeliest tokens to name beside each; negative: no log-probabilities
  size_t index = 0;
  std::shared_ptr<Inbox> inbox;
};

}  // namespace refract
