#include "serve/api.h"

#include <fmt/format.h>

#include <algorithm>
#include <ctime>
#include <memory>
#include <nlohmann/json.hpp>

#include "core/error.h"
#include "core/log.h"
#include "core/untrusted.h"
#include "serve/api_error.h"
#include "serve/json_body.h"
#include "text/utf8.h"

namespace refract {
namespace {

using nlohmann::json;

HttpAnswer with(const json& tree) {
  HttpAnswer answer;
  answer.body = tree.dump(-1, ' ', false, json::error_handler_t::replace);
  return answer;
}

HttpAnswer failure(const ApiError& error) {
  HttpAnswer answer;
  answer.status = error.status();
  answer.body = error.body();
  if (answer.status == 429 || answer.status == 503) answer.headers.emplace_back("Retry-After", "1");
  return answer;
}

}  // namespace

Api::Api(Engine& engine, Metrics& metrics, const Tokenizer& tokenizer, ServedModel model)
    : engine_(engine),
      metrics_(metrics),
      tokenizer_(tokenizer),
      model_(std::move(model)),
      started_(std::time(nullptr)) {}

const std::vector<Api::Place>& Api::places() {
  static const std::vector<Place> all = {{"POST", "/v1/completions", &Api::complete},
                                         {"GET", "/v1/models", &Api::models},
                                         {"GET", "/health", &Api::health},
                                         {"GET", "/metrics", &Api::metrics},
                                         {"GET", "/tokenizer_info", &Api::tokenizer_info},
                                         {"POST", "/tokenize", &Api::tokenize},
                                         {"POST", "/detokenize", &Api::detokenize}};
  return all;
}

HttpAnswer Api::routed(const HttpCall& call) const {
  bool known = false;
  for (const Place& place : places()) {
    if (call.path != place.path) continue;
    known = true;
    if (call.method == place.method || (call.method == "HEAD" && *place.method == 'G'))
      return (this->*place.route)(call);
  }
  if (known) throw ApiError(405, fmt::format("{} is not for {}", call.path, call.method));
  throw ApiError(404, fmt::format("there is no {}; POST /v1/completions completes a prompt",
                                  shown(call.path, 60)));
}

HttpAnswer Api::answer(const HttpCall& call) const {
  try {
    return routed(call);
  } catch (const ApiError& error) {
    return failure(error);
  } catch (const Error& error) {  // of a tokenizer, say
    return failure(ApiError(error.code() == ExitCode::kUsage ? 400 : 500, error.what()));
  } catch (const std::exception& error) {
    const std::string text = error.what();
    log_warning("a request failed: {}", text.substr(0, text.find('\n')));
    return failure(ApiError(500, "the server failed on this request; its log says how"));
  }
}

HttpAnswer Api::complete(const HttpCall& call) const {
  CompletionRequest request = parse_completion(call.body, tokenizer_, model_.start, model_.limits);
  if (!request.model.empty() && request.model != model_.name) {
    throw ApiError(404,
                   fmt::format("the model '{}' is not here; this server has '{}'",
                               shown(request.model, 100), model_.name),
                   "model");
  }
  const bool stream = request.stream;
  const CompletionHost host{engine_, metrics_, tokenizer_, model_.name, model_.stop};
  const auto completion = std::make_shared<Completion>(host, std::move(request));
  HttpAnswer answer;
  if (!stream) {
    answer.body = completion->body(call.gone);
    return answer;
  }
  answer.type = "text/event-stream";
  answer.headers.emplace_back("Cache-Control", "no-cache");
  answer.stream = [completion, gone = call.gone](const Completion::Write& write) {
    return completion->stream(gone, write);
  };
  return answer;
}

HttpAnswer Api::models(const HttpCall& /*call*/) const {
  const json model = {{"id", model_.name},
                      {"object", "model"},
                      {"created", started_},
                      {"owned_by", "refract"},
                      {"max_model_len", model_.limits.context}};
  return with({{"object", "list"}, {"data", json::array({model})}});
}

HttpAnswer Api::health(const HttpCall& /*call*/) const {
  if (engine_.load().stopping) throw ApiError(503, "the server is stopping");
  return with({{"status", "ok"}});
}

HttpAnswer Api::metrics(const HttpCall& /*call*/) const {
  HttpAnswer answer;
  answer.type = "text/plain; version=0.0.4";
  answer.body = metrics_.text(engine_.load());
  return answer;
}

// lm-evaluation-harness asks for the texts of the special tokens, and encodes them again.
HttpAnswer Api::tokenizer_info(const HttpCall& /*call*/) const {
  json info = {{"tokenizer", tokenizer_.description()},
               {"vocab_size", tokenizer_.vocab_size()},
               {"bos_token", nullptr},
               {"eos_token", nullptr},
               {"start_token_id", model_.start},
               {"stop_token_ids", model_.stop},
               {"max_model_len", model_.limits.context}};
  const auto name = [&](const char* key, TokenId id) {
    const std::string text = tokenizer_.decode({&id, 1});
    if (tokenizer_.encode(text) == std::vector<TokenId>{id}) info[key] = repair_utf8(text);
  };
  if (!model_.stop.empty()) {
    name("bos_token", model_.start);
    name("eos_token", model_.stop.front());
  }
  if (!model_.chat_template.empty()) info["chat_template"] = model_.chat_template;
  return with(info);
}

HttpAnswer Api::tokenize(const HttpCall& call) const {
  const JsonBody body(call.body);
  body.allow_only({"model", "prompt", "add_special_tokens"});
  if (!body.has("prompt")) refuse("prompt", "prompt is missing");
  std::vector<TokenId> tokens = tokenizer_.encode(body.text("prompt", ""));
  if (body.flag("add_special_tokens", true) && model_.adds_start)
    tokens.insert(tokens.begin(), model_.start);
  return with(
      {{"tokens", tokens}, {"count", tokens.size()}, {"max_model_len", model_.limits.context}});
}

HttpAnswer Api::detokenize(const HttpCall& call) const {
  const JsonBody body(call.body);
  body.allow_only({"model", "tokens"});
  if (!body.has("tokens")) refuse("tokens", "tokens is missing");
  const int64_t ids = std::min<int64_t>(tokenizer_.vocab_size(), model_.limits.vocabulary);
  return with(
      {{"prompt", repair_utf8(tokenizer_.decode(token_ids(body.at("tokens"), "tokens", ids)))}});
}

}  // namespace refract
