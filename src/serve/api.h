// What the server answers to whom, apart from how it travels.
#pragma once
#include <string>
#include <vector>

#include "serve/completion.h"
#include "serve/completion_request.h"
#include "serve/engine/engine.h"
#include "serve/http/http_call.h"
#include "serve/metrics.h"
#include "text/tokenizer.h"

namespace refract {

// The model as it is served.
struct ServedModel {
  std::string name;
  TokenId start = 0;          // stands for an empty prompt
  bool adds_start = false;    // the tokenizer puts it before a text where special tokens are asked
  std::vector<TokenId> stop;  // tokens that end a text
  std::string chat_template;  // empty: none
  RequestLimits limits;
};

class Api {
 public:
  Api(Engine& engine, Metrics& metrics, const Tokenizer& tokenizer, ServedModel model);

  // Errors are answers, too.
  HttpAnswer answer(const HttpCall& call) const;

 private:
  using Route = HttpAnswer (Api::*)(const HttpCall&) const;
  struct Place {
    const char *method, *path;
    Route route;
  };
  static const std::vector<Place>& places();
  HttpAnswer routed(const HttpCall& call) const;

  HttpAnswer complete(const HttpCall& call) const;
  HttpAnswer models(const HttpCall& call) const;
  HttpAnswer health(const HttpCall& call) const;
  HttpAnswer metrics(const HttpCall& call) const;
  HttpAnswer tokenizer_info(const HttpCall& call) const;
  HttpAnswer tokenize(const HttpCall& call) const;
  HttpAnswer detokenize(const HttpCall& call) const;

  Engine& engine_;
  Metrics& metrics_;
  const Tokenizer& tokenizer_;
  ServedModel model_;
  int64_t started_;
};

}  // namespace refract
