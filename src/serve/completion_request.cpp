#include "serve/completion_request.h"

#include <algorithm>
#include <limits>
#include <nlohmann/json.hpp>
#include <random>

#include "core/untrusted.h"
#include "serve/api_error.h"
#include "serve/json_body.h"

namespace refract {
namespace {

using nlohmann::json;

// What the protocol has and this server computes in no way: it may be sent with the value that
// changes nothing.
void refuse_what_is_missing(const JsonBody& body) {
  for (const char* name : {"frequency_penalty", "presence_penalty"}) {
    if (body.number(name, 0, -2, 2) != 0) refuse(name, "{} is not supported; leave it at 0", name);
  }
  if (body.has("logit_bias") && !body.at("logit_bias").empty())
    refuse("logit_bias", "logit_bias is not supported");
  if (!body.text("suffix", "").empty()) refuse("suffix", "suffix is not supported");
}

uint64_t any_seed() {
  std::random_device device;
  return (static_cast<uint64_t>(device()) << 32) | device();
}

uint64_t seed_of(const JsonBody& body) {
  if (!body.has("seed")) return any_seed();
  if (!body.at("seed").is_number_integer())
    refuse("seed", "seed must be an integer, not {}", shown(body.at("seed")));
  return body.at("seed").get<uint64_t>();
}

void check_stop(const std::string& stop, const RequestLimits& limits) {
  if (stop.empty()) refuse("stop", "a stop string must not be empty");
  if (static_cast<int64_t>(stop.size()) > limits.stop_bytes)
    refuse("stop", "a stop string has {} bytes; the most are {}", stop.size(), limits.stop_bytes);
}

std::vector<std::string> stops_of(const JsonBody& body, const RequestLimits& limits) {
  std::vector<std::string> stops;
  if (!body.has("stop")) return stops;
  const json& given = body.at("stop");
  if (given.is_string()) {
    stops.push_back(given.get<std::string>());
  } else if (given.is_array()) {
    if (static_cast<int64_t>(given.size()) > limits.stops)
      refuse("stop", "stop holds {} strings; the most are {}", given.size(), limits.stops);
    for (const json& one : given) {
      if (!one.is_string()) refuse("stop", "stop must hold strings, not {}", shown(one));
      stops.push_back(one.get<std::string>());
    }
  } else {
    refuse("stop", "stop must be a string or an array of strings");
  }
  for (const std::string& stop : stops) check_stop(stop, limits);
  return stops;
}

class PromptReader {
 public:
  PromptReader(const Tokenizer& tokenizer, TokenId start, const RequestLimits& limits)
      : tokenizer_(tokenizer), start_(start), limits_(limits) {}

  // A text, texts, token ids, or lists of token ids.
  std::vector<Prompt> read(const JsonBody& body) const {
    if (!body.has("prompt")) refuse("prompt", "prompt is missing");
    const json& given = body.at("prompt");
    if (given.is_string()) return {of_text(given.get<std::string>())};
    if (!given.is_array() || given.empty())
      refuse("prompt", "prompt must be a text, token ids, or a list of either that is not empty");
    if (given.front().is_number()) return {of_ids(given)};
    if (static_cast<int64_t>(given.size()) > limits_.sequences)
      refuse("prompt", "prompt holds {} prompts; the most are {}", given.size(), limits_.sequences);
    std::vector<Prompt> prompts;
    for (const json& one : given)
      prompts.push_back(one.is_string() ? of_text(one.get<std::string>()) : of_ids(one));
    return prompts;
  }

 private:
  Prompt of_text(std::string text) const {
    Prompt prompt{std::move(text), {}};
    prompt.tokens = tokenizer_.encode(prompt.text);
    if (prompt.tokens.empty()) prompt.tokens = {start_};
    for (const TokenId token : prompt.tokens) {
      if (token < limits_.vocabulary) continue;
      refuse("prompt",
             "the prompt holds the token {}, but the model's vocabulary has {}: its tokenizer has "
             "tokens that the model was never given",
             token, limits_.vocabulary);
    }
    check(prompt);
    return prompt;
  }

  Prompt of_ids(const json& ids) const {
    if (ids.is_array() && static_cast<int64_t>(ids.size()) > limits_.context)
      refuse_length(ids.size());
    Prompt prompt{{}, token_ids(ids, "prompt", limits_.vocabulary)};
    if (prompt.tokens.empty()) refuse("prompt", "a prompt of token ids must not be empty");
    check(prompt);
    prompt.text = tokenizer_.decode(prompt.tokens);
    return prompt;
  }

  void check(const Prompt& prompt) const {
    if (static_cast<int64_t>(prompt.tokens.size()) > limits_.context)
      refuse_length(prompt.tokens.size());
  }

  [[noreturn]] void refuse_length(size_t tokens) const {
    refuse("prompt", "the prompt has {} tokens; the model takes {}", tokens, limits_.context);
  }

  const Tokenizer& tokenizer_;
  TokenId start_;
  const RequestLimits& limits_;
};

// Of a whole context the next token is known, so one more than fits may be asked for.
void check_length(const CompletionRequest& request, const RequestLimits& limits) {
  for (const Prompt& prompt : request.prompts) {
    const auto tokens = static_cast<int64_t>(prompt.tokens.size());
    if (tokens + request.sampling.max_tokens <= limits.context + 1) continue;
    refuse("max_tokens",
           "{} tokens of the prompt and max_tokens = {} are more than the model's context of {}",
           tokens, request.sampling.max_tokens, limits.context);
  }
}

// What an answer holds in memory follows from this.
void check_told(const CompletionRequest& request, const RequestLimits& limits) {
  if (request.logprobs < 0) return;
  int64_t tokens = 0;
  for (const Prompt& prompt : request.prompts) {
    tokens += request.sampling.max_tokens +
              (request.echo ? static_cast<int64_t>(prompt.tokens.size()) : 0);
  }
  const int64_t told = tokens * request.n * (request.logprobs + 1);
  if (told <= limits.told) return;
  refuse("logprobs",
         "the answer would hold {} log-probabilities; the most are {}: ask for fewer prompts, a "
         "smaller n or fewer logprobs",
         told, limits.told);
}

}  // namespace

CompletionRequest parse_completion(std::string_view text, const Tokenizer& tokenizer, TokenId start,
                                   const RequestLimits& limits) {
  const JsonBody body(text);
  body.allow_only({"model", "prompt", "max_tokens", "temperature", "top_p", "top_k", "n", "stop",
                   "seed", "echo", "logprobs", "stream", "stream_options", "user", "best_of",
                   "suffix", "frequency_penalty", "presence_penalty", "logit_bias"});
  refuse_what_is_missing(body);
  CompletionRequest request;
  request.model = body.text("model", "");
  request.sampling.max_tokens = body.integer("max_tokens", 16, 0, limits.context);
  request.sampling.temperature = body.number("temperature", 1, 0, 100);
  request.sampling.top_p = body.number("top_p", 1, 0, 1);
  if (request.sampling.top_p == 0) refuse("top_p", "top_p must be above 0");
  request.sampling.top_k =
      std::max<int64_t>(0, body.integer("top_k", 0, -1, limits.vocabulary));  // -1: all, too
  request.sampling.seed = seed_of(body);
  request.n = body.integer("n", 1, 1, limits.sequences);
  if (body.integer("best_of", request.n, 1, limits.sequences) != request.n)
    refuse("best_of", "best_of is not supported beyond n = {}", request.n);
  request.stop = stops_of(body, limits);
  request.echo = body.flag("echo", false);
  request.logprobs = body.integer("logprobs", -1, 0, limits.logprobs);
  request.stream = body.flag("stream", false);
  if (body.has("stream_options")) {
    const json& options = body.at("stream_options");
    if (!options.is_object()) refuse("stream_options", "stream_options must be an object");
    for (const auto& [name, value] : options.items()) {
      if (name != "include_usage" || !value.is_boolean())
        refuse("stream_options", "stream_options takes include_usage, true or false");
      request.stream_usage = value.get<bool>();
    }
  }
  request.prompts = PromptReader(tokenizer, start, limits).read(body);
  const auto prompts = static_cast<int64_t>(request.prompts.size());
  if (prompts * request.n > limits.sequences) {
    refuse("n", "{} prompts and n = {} make {} sequences; the most are {}", prompts, request.n,
           prompts * request.n, limits.sequences);
  }
  check_length(request, limits);
  check_told(request, limits);
  return request;
}

}  // namespace refract
