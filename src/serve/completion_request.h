// What POST /v1/completions asks for, checked against what the server allows.
#pragma once
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "decode/sampling.h"
#include "text/tokenizer.h"

namespace refract {

struct RequestLimits {
  int64_t context = 0;      // tokens of a sequence
  int64_t vocabulary = 0;   // of the model
  int64_t sequences = 128;  // prompts times n
  int64_t stops = 16;       // stop strings, each of up to
  int64_t stop_bytes = 256;
  int64_t logprobs = 20;            // likeliest tokens beside each
  int64_t told = int64_t{1} << 20;  // log-probabilities in an answer
};

struct Prompt {
  std::string text;             // as it was sent; of token ids what they say
  std::vector<TokenId> tokens;  // at least one
};

struct CompletionRequest {
  std::string model;  // empty: whichever is served
  std::vector<Prompt> prompts;
  SamplingOptions sampling;  // without stop tokens; the seed is drawn where none is given
  int64_t n = 1;
  std::vector<std::string> stop;
  bool echo = false;
  bool stream = false, stream_usage = false;
  int64_t logprobs = -1;  // none
};

// Reads one from the body of a request; `start` stands for an empty prompt. ApiError 400 for
// anything that is not understood, so that no setting is silently without effect.
CompletionRequest parse_completion(std::string_view body, const Tokenizer& tokenizer, TokenId start,
                                   const RequestLimits& limits);

}  // namespace refract
