#include "distributed/watch.h"

#include <unistd.h>

#include <array>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <utility>

#include "core/log.h"
#include "core/progress.h"

namespace refract {
namespace {

constexpr auto kPoll = std::chrono::milliseconds(250);
constexpr auto kLinger = std::chrono::milliseconds(1500);
constexpr auto kBetweenPolls = std::chrono::milliseconds(20);
constexpr const char* kFailed = "failed";

std::string seen_key(int64_t rank) { return "seen/" + std::to_string(rank); }

}  // namespace

void Watch::say(const std::string& text) {
  clear_progress_line();
  std::fprintf(stderr, "refract: %s\n", text.c_str());
  log_quietly(text);
}

std::string sign_key(int64_t rank) { return "sign/" + std::to_string(rank); }

std::string Cause::encoded() const { return std::to_string(code) + "\n" + host + "\n" + text; }

Cause Cause::decoded(const std::string& text) {
  const size_t first = text.find('\n'), second = text.find('\n', first + 1);
  Cause cause;
  cause.code = text.starts_with('2') ? 2 : 1;
  cause.host = text.substr(first + 1, second - first - 1);
  cause.text = text.substr(second + 1);
  return cause;
}

std::string own_host() {
  std::array<char, 256> name{};
  ::gethostname(name.data(), name.size() - 1);
  return name.data();
}

std::string own_description() {
  std::string text = own_host();
  return text.append(", pid ").append(std::to_string(::getpid()));
}

std::string describe_process(Rendezvous& store, int64_t rank) {
  std::string text = "process " + std::to_string(rank);
  return text.append(" (").append(store.text("here/" + std::to_string(rank))).append(")");
}

Watch::Watch(const Ranks& ranks, int64_t connect_seconds, std::string name_of_first)
    : ranks_(ranks),
      name_of_first_(std::move(name_of_first)),
      store_(ranks, connect_seconds, /*listens=*/false) {
  for (int64_t rank = 0; rank < ranks.size; ++rank) {
    if (rank != ranks.rank && (ranks.rank == 0 || rank == 0)) watched_.push_back(sign_key(rank));
  }
  signs_.resize(watched_.size());
  silent_polls_.resize(watched_.size());
  thread_ = std::thread([this] { run(); });
  guard_ = std::thread([this] { guard(); });
}

void Watch::stop() {
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    stopping_ = true;
  }
  wake_.notify_all();
  if (thread_.joinable()) thread_.join();
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    stopped_ = true;
  }
  wake_.notify_all();
  if (guard_.joinable()) guard_.join();
}

void Watch::run() {
  try {
    std::unique_lock<std::mutex> lock(mutex_);
    while (!stopping_) {
      lock.unlock();
      poll();
      lock.lock();
      wake_.wait_for(lock, kPoll, [this] { return stopping_; });
    }
  } catch (const std::exception& error) {
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      if (stopping_) return;
    }
    std::string text = ranks_.agent_store ? "" : name_of_first_ + " ended without a word; ";
    end_without_store(text.append(error.what()));
  }
}

int64_t Watch::most_silent_polls() const {
  return static_cast<int64_t>(timeout_ / std::chrono::duration<double>(kPoll).count());
}

// A stopped process 0 keeps its connections, and whoever asks its store waits for ever.
void Watch::guard() {
  int64_t last = 0, silent = 0;
  std::unique_lock<std::mutex> lock(mutex_);
  while (!wake_.wait_for(lock, kPoll, [this] { return stopped_; })) {
    const int64_t now = polls_;
    silent = now == last ? silent + 1 : 0;
    last = now;
    if (silent > most_silent_polls() + 2)  // after the poll itself, where both could tell
      end_without_store(silence(ranks_.agent_store ? "torchrun's store" : name_of_first_));
  }
}

void Watch::end_without_store(const std::string& text) const {
  if (ranks_.rank == 1) {
    say(text);
  } else {
    log_quietly(text);
  }
  std::_Exit(1);
}

std::string Watch::silence(const std::string& who) const {
  return fmt::format("{} gave no sign of life for {:.3g} s (train.timeout): it was killed or hangs",
                     who, timeout_.load());
}

void Watch::poll() {
  store_.set(sign_key(ranks_.rank), std::to_string(++beats_));
  if (const auto cause = store_.look(kFailed)) leave(store_, ranks_, Cause::decoded(*cause));
  look_for_silence();
  ++polls_;
}

// Polls are counted, not seconds: where the whole machine stood still nobody is to blame.
void Watch::look_for_silence() {
  const std::vector<std::string> now = store_.look_at(watched_);
  for (size_t i = 0; i < watched_.size(); ++i) {
    silent_polls_[i] = now[i] == signs_[i] ? silent_polls_[i] + 1 : 0;
    signs_[i] = now[i];
    if (silent_polls_[i] <= most_silent_polls()) continue;
    const int64_t rank = ranks_.rank == 0 ? static_cast<int64_t>(i) + 1 : 0;
    end(silence(describe_process(store_, rank)), rank);
  }
}

void Watch::end(const std::string& text, int64_t gone) {
  announce(store_, ranks_, {1, own_host(), text});
  say(text);
  linger(store_, ranks_, gone);
  std::_Exit(1);
}

void Watch::announce(Rendezvous& store, const Ranks& ranks, const Cause& cause) {
  if (store.claim(kFailed, cause.encoded())) return;
  leave(store, ranks, Cause::decoded(store.text(kFailed)));
}

void Watch::leave(Rendezvous& store, const Ranks& ranks, const Cause& cause) {
  log_quietly("ended by the failure of another process: " + cause.text);
  // On the same machine the one that failed has written to the same terminal.
  if (ranks.rank == 0 && cause.host != own_host()) say(cause.text);
  try {
    linger(store, ranks);
  } catch (const ConnectionError&) {
    std::_Exit(cause.code);  // the others were quicker
  }
  std::_Exit(cause.code);
}

void Watch::linger(Rendezvous& store, const Ranks& ranks, int64_t gone) {
  store.set(seen_key(ranks.rank), std::string("yes"));
  if (ranks.rank != 0 || ranks.agent_store) return;
  const auto end = std::chrono::steady_clock::now() + kLinger;
  for (int64_t rank = 1; rank < ranks.size; ++rank) {
    while (rank != gone && !store.look(seen_key(rank)) && std::chrono::steady_clock::now() < end)
      std::this_thread::sleep_for(kBetweenPolls);
  }
}

}  // namespace refract
