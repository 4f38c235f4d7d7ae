#include "serve/engine/engine.h"

#include <ATen/core/grad_mode.h>
#include <c10/util/Exception.h>

#include <algorithm>
#include <exception>
#include <string>
#include <utility>

#include "core/error.h"
#include "core/log.h"
#include "serve/engine/cache_memory.h"
#include "serve/engine/inbox.h"

namespace refract {
namespace {

bool is_cancelled(const Work& work) { return work.inbox->cancelled(work.index); }

void put_end(const Work& work, End end, const std::string& message = "") {
  News news;
  news.index = work.index;
  news.end = end;
  news.message = message;
  work.inbox->put(std::move(news));
}

// torch has a class for a GPU's memory alone.
bool is_out_of_memory(const c10::Error& error) {
  return dynamic_cast<const c10::OutOfMemoryError*>(&error) != nullptr ||
         error.msg().find("can't allocate memory") != std::string::npos;
}

// Runs `action`; where it throws, the work fails and the server goes on.
template <class Action>
bool guarded_work(const Work& work, const Action& action) {
  try {
    action();
    return true;
  } catch (const Error& error) {
    log_warning("a request failed: {}", error.what());
    put_end(work, End::kFailed, error.what());
  } catch (const std::exception& error) {
    const std::string text = error.what();
    log_warning("a request failed: {}", text.substr(0, text.find('\n')));
    put_end(work, End::kFailed, "the model failed on this request; the server's log says how");
  }
  return false;
}

}  // namespace

Engine::Engine(Decoder& model, const EngineOptions& options)
    : use_(model), causal_(use_.is_causal()), options_(options) {
  const at::NoGradGuard no_grad;
  check_cache_memory(model, options.slots, options.context);
  try {
    for (int64_t i = 0; i < options.slots; ++i)
      slots_.push_back(std::make_unique<Slot>(use_, options.context));
  } catch (const c10::Error& error) {
    if (!is_out_of_memory(error)) throw;
    slots_.clear();
    fail_for_caches(model, options.slots, options.context);
  }
}

// A prompt's scores and one token behind it need no cache, where the token that stands last changes
// nothing before it.
bool Engine::is_one_pass(const Work& work) const {
  return work.scores_prompt && work.sampling.max_tokens <= (causal_ ? 1 : 0);
}

int64_t Engine::waiting_works() const {
  return static_cast<int64_t>(to_score_.size() + to_continue_.size());
}

void Engine::drop_cancelled() {
  for (std::deque<Work>* waiting : {&to_score_, &to_continue_})
    std::erase_if(*waiting, is_cancelled);
}

Admission Engine::submit(std::vector<Work> works) {
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (stopping_) return Admission::kStopping;
    const auto more = static_cast<int64_t>(works.size());
    if (waiting_works() + more > options_.queue) drop_cancelled();
    if (waiting_works() + more > options_.queue) return Admission::kFull;
    for (Work& work : works)
      (is_one_pass(work) ? to_score_ : to_continue_).push_back(std::move(work));
  }
  wake_.notify_one();
  return Admission::kTaken;
}

void Engine::stop(std::chrono::milliseconds grace) {
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    const Clock::time_point deadline = Clock::now() + grace;
    deadline_ = stopping_ ? std::min(deadline_, deadline) : deadline;
    stopping_ = true;
  }
  wake_.notify_one();
}

Engine::Load Engine::load() const {
  const std::lock_guard<std::mutex> lock(mutex_);
  return {options_.slots, active_, waiting_works(), prompt_tokens_, new_tokens_, stopping_};
}

void Engine::run() {
  const at::NoGradGuard no_grad;
  for (;;) {
    {
      std::unique_lock<std::mutex> lock(mutex_);
      if (stopping_ && Clock::now() >= deadline_) break;
    }
    if (round()) continue;
    std::unique_lock<std::mutex> lock(mutex_);
    if (waiting_works() > 0) continue;
    if (stopping_) break;
    wake_.wait(lock, [&] { return waiting_works() > 0 || stopping_; });
  }
  cut_off();
}

void Engine::cut_off() {
  for (const auto& slot : slots_) {
    if (!slot->busy()) continue;
    put_end(slot->work(), End::kCutOff);
    finish(*slot);
  }
  const std::lock_guard<std::mutex> lock(mutex_);
  for (std::deque<Work>* waiting : {&to_score_, &to_continue_}) {
    for (const Work& work : *waiting) put_end(work, End::kCutOff);
    waiting->clear();
  }
}

// The next that is still wanted.
std::optional<Work> Engine::next(std::deque<Work>& waiting) {
  const std::lock_guard<std::mutex> lock(mutex_);
  while (!waiting.empty()) {
    Work work = std::move(waiting.front());
    waiting.pop_front();
    if (!is_cancelled(work)) return work;
  }
  return std::nullopt;
}

Slot* Engine::free_slot() {
  for (const auto& slot : slots_) {
    if (!slot->busy()) return slot.get();
  }
  return nullptr;
}

// A token for everything that is under way, and one prompt of each kind: a long queue of prompts
// does not hold up those that are being answered. Whether there was anything to do.
bool Engine::round() {
  bool worked = false;
  for (const auto& slot : slots_) {
    if (!slot->busy()) continue;
    advance(*slot);
    worked = true;
  }
  if (const std::optional<Work> work = next(to_score_)) {
    score(*work);
    worked = true;
  }
  if (Slot* slot = free_slot()) {
    if (std::optional<Work> work = next(to_continue_)) {
      begin(*slot, std::move(*work));
      worked = true;
    }
  }
  return worked;
}

void Engine::finish(Slot& slot) {
  slot.release();
  --active_;
}

void Engine::advance(Slot& slot) {
  const Work& work = slot.work();
  if (is_cancelled(work)) {
    finish(slot);
    return;
  }
  bool ended = false;
  const bool done = guarded_work(work, [&] {
    Slot::Step step = slot.step();
    ended = step.end.has_value();
    ++new_tokens_;
    News news;
    news.index = work.index;
    news.token = std::move(step.token);
    news.end = step.end;
    work.inbox->put(std::move(news));
  });
  if (ended || !done) finish(slot);
}

// A prompt that is to be scored as well is read twice: as one pass, and into the slot's cache.
void Engine::begin(Slot& slot, Work work) {
  ++active_;
  const Work copy = work;
  const bool done = guarded_work(copy, [&] {
    if (copy.scores_prompt) {
      Work alone = copy;
      alone.sampling.max_tokens = 0;
      News news;
      news.index = copy.index;
      news.prompt_scores = score_prompt(use_, alone).tokens;
      copy.inbox->put(std::move(news));
    }
    slot.start(std::move(work));
    prompt_tokens_ += static_cast<int64_t>(copy.prompt.size());
  });
  if (!done) finish(slot);
}

void Engine::score(const Work& work) {
  ++active_;
  guarded_work(work, [&] {
    PromptScores scores = score_prompt(use_, work);
    prompt_tokens_ += static_cast<int64_t>(work.prompt.size());
    News news;
    news.index = work.index;
    news.prompt_scores = std::move(scores.tokens);
    const bool stops = scores.next && is_stop(work, scores.next->token);
    news.end = stops ? End::kStop : End::kLength;
    news.token = std::move(scores.next);
    new_tokens_ += news.token ? 1 : 0;
    work.inbox->put(std::move(news));
  });
  --active_;
}

}  // namespace refract
