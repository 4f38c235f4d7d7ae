#include "serve/completion.h"

#include <fmt/format.h>

#include <algorithm>
#include <atomic>
#include <ctime>
#include <nlohmann/json.hpp>
#include <utility>

#include "core/error.h"
#include "serve/api_error.h"
#include "text/utf8.h"

namespace refract {
namespace {

using nlohmann::json;

constexpr std::chrono::milliseconds kLook{100};  // between looks whether the client is still there
constexpr int kClientGone = 499;

std::string next_id() {
  static std::atomic<int64_t> count = 0;
  return fmt::format("cmpl-{:x}-{}", std::time(nullptr), ++count);
}

std::string dumped(const json& tree) {
  return tree.dump(-1, ' ', false, json::error_handler_t::replace);
}

}  // namespace

Completion::Completion(const CompletionHost& host, CompletionRequest request)
    : host_(host), request_(std::move(request)), id_(next_id()), created_(std::time(nullptr)) {
  for (const Prompt& prompt : request_.prompts) {
    for (int64_t i = 0; i < request_.n; ++i) {
      Part part;
      part.prompt = &prompt;
      const int64_t before = request_.echo ? character_count(prompt.text) : 0;
      part.choice = std::make_unique<Choice>(host_.tokenizer, prompt.tokens, request_.stop, before);
      if (request_.echo) part.text = prompt.text;
      parts_.push_back(std::move(part));
    }
  }
  inbox_ = std::make_shared<Inbox>(parts_.size());
  submit();
}

Completion::~Completion() { inbox_->cancel_all(); }

void Completion::submit() {
  std::vector<Work> works;
  for (size_t index = 0; index < parts_.size(); ++index) {
    Work work;
    work.prompt = parts_[index].prompt->tokens;
    work.sampling = request_.sampling;
    work.sampling.stop = host_.stop;
    work.number = static_cast<int64_t>(index) % request_.n;
    work.scores_prompt = request_.echo && request_.logprobs >= 0;
    work.logprobs = request_.logprobs;
    work.index = index;
    work.inbox = inbox_;
    if (work.sampling.max_tokens == 0 && !work.scores_prompt) {
      parts_[index].finish_reason = "length";  // there is nothing to compute
      continue;
    }
    works.push_back(std::move(work));
  }
  open_ = works.size();
  if (works.empty()) return;
  switch (host_.engine.submit(std::move(works))) {
    case Admission::kTaken:
      return;
    case Admission::kFull:
      throw ApiError(429, "the server has as many requests waiting as it takes; try again later");
    case Admission::kStopping:
      throw ApiError(503, "the server is stopping");
  }
}

double Completion::seconds() const {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - begun_).count();
}

std::vector<ShownToken> Completion::prompt_tokens(const Part& part,
                                                  const std::vector<TokenScore>& scores) const {
  std::vector<ShownToken> tokens;
  std::vector<TokenId> before;  // the token before, where there is one
  int64_t offset = 0;
  const int64_t characters = character_count(part.prompt->text);
  for (const TokenScore& score : scores) {
    ShownToken token{score, std::nullopt, offset};
    if (!before.empty()) token.previous = before.front();
    const std::string text = before.empty() ? host_.tokenizer.decode({&score.token, 1})
                                            : continuation(host_.tokenizer, before, {score.token});
    offset = std::min(offset + character_count(text), characters);
    before = {score.token};
    tokens.push_back(std::move(token));
  }
  return tokens;
}

void Completion::end(Part& part, End how, const std::string& message) const {
  switch (how) {
    case End::kStop:
      part.finish_reason = "stop";
      return;
    case End::kLength:
      part.finish_reason = part.choice->stopped() ? "stop" : "length";
      return;
    case End::kFailed:
      throw ApiError(500, message);
    case End::kCutOff:
      throw ApiError(503, "the server stopped before the answer was complete");
    case End::kCancelled:
      throw ApiError(500, "the request was cancelled");
  }
}

bool Completion::take(News& news, const Tell& tell) {
  Part& part = parts_[news.index];
  if (!part.finish_reason.empty()) return true;  // it was stopped, and the model did not know yet
  if (!news.prompt_scores.empty()) {
    Choice::Piece piece;
    piece.tokens = prompt_tokens(part, news.prompt_scores);
    if (!tell(news.index, std::move(piece), 0)) return false;
  }
  Choice::Piece piece;
  if (news.token) {
    if (!std::exchange(told_first_, true)) host_.metrics.first_token(seconds());
    // Harnesses count on a log-probability for each token, that which ends a text too.
    const bool silent = news.end == End::kStop;
    piece = silent ? part.choice->add_silent(*news.token) : part.choice->add(*news.token);
  }
  if (news.end) {
    Choice::Piece rest = part.choice->finish();
    piece.text += rest.text;
    for (ShownToken& token : rest.tokens) piece.tokens.push_back(std::move(token));
    end(part, *news.end, news.message);
    --open_;
  } else if (part.choice->stopped()) {
    part.finish_reason = "stop";
    inbox_->cancel(news.index);
    --open_;
  }
  const auto count = static_cast<int64_t>(piece.tokens.size());
  return tell(news.index, std::move(piece), count);
}

bool Completion::follow(const Gone& gone, const Tell& tell) {
  while (open_ > 0) {
    std::vector<News> all = inbox_->wait(kLook);
    if (gone()) {
      host_.metrics.abandoned();
      return false;
    }
    for (News& news : all) {
      if (!take(news, tell)) {
        host_.metrics.abandoned();
        return false;
      }
    }
  }
  host_.metrics.completed(seconds());
  return true;
}

json Completion::logprobs_json(const std::vector<ShownToken>& tokens) const {
  if (request_.logprobs < 0) return nullptr;
  json names = json::array(), logprobs = json::array(), tops = json::array(),
       offsets = json::array();
  for (const ShownToken& token : tokens) {
    const std::string name = token_text(host_.tokenizer, token.previous, token.score.token);
    names.push_back(name);
    offsets.push_back(token.offset);
    if (!token.score.logprob) {
      logprobs.push_back(nullptr);
      tops.push_back(nullptr);
      continue;
    }
    const double own = *token.score.logprob;
    logprobs.push_back(own);
    // Tokens of one text have to share the object: those after the first go by their ids.
    json top = json::object();
    bool among = false;
    const auto add = [&](TokenId id, double logprob) {
      std::string key = token_text(host_.tokenizer, token.previous, id);
      if (top.contains(key)) key = fmt::format("token_id:{}", id);
      top[key] = logprob;
      among = among || id == token.score.token;
    };
    for (const auto& [id, logprob] : token.score.top) add(id, logprob);
    if (!among) add(token.score.token, own);
    tops.push_back(std::move(top));
  }
  return {{"tokens", std::move(names)},
          {"token_logprobs", std::move(logprobs)},
          {"top_logprobs", std::move(tops)},
          {"text_offset", std::move(offsets)}};
}

json Completion::frame() const {
  return {{"id", id_},
          {"object", "text_completion"},
          {"created", created_},
          {"model", host_.model},
          {"choices", json::array()}};
}

json Completion::choice_json(size_t index, const std::string& text,
                             const std::vector<ShownToken>& tokens,
                             const std::string& finish_reason) const {
  json choice = {{"index", index},
                 {"text", repair_utf8(text)},
                 {"logprobs", logprobs_json(tokens)},
                 {"finish_reason", nullptr}};
  if (!finish_reason.empty()) choice["finish_reason"] = finish_reason;
  return choice;
}

json Completion::usage() const {
  int64_t read = 0, made = 0;
  for (const Prompt& prompt : request_.prompts) read += static_cast<int64_t>(prompt.tokens.size());
  for (const Part& part : parts_) made += part.new_tokens;
  return {{"prompt_tokens", read}, {"completion_tokens", made}, {"total_tokens", read + made}};
}

std::string Completion::body(const Gone& gone) {
  const bool there = follow(gone, [&](size_t index, Choice::Piece piece, int64_t new_tokens) {
    Part& part = parts_[index];
    part.text += piece.text;
    part.new_tokens += new_tokens;
    for (ShownToken& token : piece.tokens) part.tokens.push_back(std::move(token));
    return true;
  });
  if (!there) throw ApiError(kClientGone, "the client went away");
  json answer = frame();
  for (size_t i = 0; i < parts_.size(); ++i) {
    answer["choices"].push_back(
        choice_json(i, parts_[i].text, parts_[i].tokens, parts_[i].finish_reason));
  }
  answer["usage"] = usage();
  return dumped(answer);
}

bool Completion::stream(const Gone& gone, const Write& write) {
  const auto event = [&](const json& tree) { return write("data: " + dumped(tree) + "\n\n"); };
  const auto chunk = [&](size_t index, const std::string& text,
                         const std::vector<ShownToken>& tokens) {
    json tree = frame();
    tree["choices"].push_back(choice_json(index, text, tokens, parts_[index].finish_reason));
    if (request_.stream_usage) tree["usage"] = nullptr;
    return event(tree);
  };
  try {
    for (size_t i = 0; i < parts_.size(); ++i) {
      const bool done = !parts_[i].finish_reason.empty();
      if ((request_.echo || done) && !chunk(i, parts_[i].text, {})) return false;
    }
    const bool there =
        follow(gone, [&](size_t index, const Choice::Piece& piece, int64_t new_tokens) {
          parts_[index].new_tokens += new_tokens;
          const bool empty = piece.text.empty() && piece.tokens.empty();
          if (empty && parts_[index].finish_reason.empty()) return true;
          return chunk(index, piece.text, piece.tokens);
        });
    if (!there) return false;
    if (request_.stream_usage) {
      json last = frame();
      last["usage"] = usage();
      if (!event(last)) return false;
    }
    return write("data: [DONE]\n\n");
  } catch (const ApiError& error) {
    write("data: " + error.body() + "\n\n");
    return false;
  }
}

}  // namespace refract
