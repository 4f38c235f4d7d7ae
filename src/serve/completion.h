// One completion under way: gives its works to the engine and turns the news into an answer.
#pragma once
#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "serve/choice.h"
#include "serve/completion_request.h"
#include "serve/engine/engine.h"
#include "serve/engine/inbox.h"
#include "serve/metrics.h"

namespace refract {

// What a completion needs to know of its server.
struct CompletionHost {
  Engine& engine;
  Metrics& metrics;
  const Tokenizer& tokenizer;
  std::string model;          // the name it is served under
  std::vector<TokenId> stop;  // tokens that end a text
};

class Completion {
 public:
  using Gone = std::function<bool()>;                   // whether the client went away
  using Write = std::function<bool(std::string_view)>;  // false: it can't be reached

  // ApiError 429 where the queue is full, 503 where the server stops.
  Completion(const CompletionHost& host, CompletionRequest request);
  ~Completion();  // what is still under way is cancelled
  Completion(const Completion&) = delete;
  Completion& operator=(const Completion&) = delete;

  // The whole answer. ApiError 500 and 503; 499 where the client went away.
  std::string body(const Gone& gone);
  // The same as events of a stream, each as soon as it can be told; false where the client went
  // away. An error is an event, too.
  bool stream(const Gone& gone, const Write& write);

 private:
  struct Part {
    std::unique_ptr<Choice> choice;
    const Prompt* prompt = nullptr;
    std::string text;
    std::vector<ShownToken> tokens;
    int64_t new_tokens = 0;
    std::string finish_reason;  // empty: under way
  };

  void submit();
  // What the client can be told next of a part.
  using Tell = std::function<bool(size_t index, Choice::Piece piece, int64_t new_tokens)>;
  bool follow(const Gone& gone, const Tell& tell);
  bool take(News& news, const Tell& tell);
  std::vector<ShownToken> prompt_tokens(const Part& part,
                                        const std::vector<TokenScore>& scores) const;
  void end(Part& part, End how, const std::string& message) const;
  nlohmann::json frame() const;
  nlohmann::json choice_json(size_t index, const std::string& text,
                             const std::vector<ShownToken>& tokens,
                             const std::string& finish_reason) const;
  nlohmann::json logprobs_json(const std::vector<ShownToken>& tokens) const;
  nlohmann::json usage() const;
  double seconds() const;

  CompletionHost host_;
  CompletionRequest request_;
  std::shared_ptr<Inbox> inbox_;
  std::vector<Part> parts_;
  size_t open_ = 0;  // parts under way
  bool told_first_ = false;
  std::string id_;
  int64_t created_;
  std::chrono::steady_clock::time_point begun_ = std::chrono::steady_clock::now();
};

}  // namespace refract
