#include "serve/engine/inbox.h"

#include <utility>

namespace refract {

void Inbox::put(News news) {
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    news_.push_back(std::move(news));
  }
  came_.notify_one();
}

std::vector<News> Inbox::wait(std::chrono::milliseconds longest) {
  std::unique_lock<std::mutex> lock(mutex_);
  came_.wait_for(lock, longest, [&] { return !news_.empty(); });
  return std::exchange(news_, {});
}

void Inbox::cancel(size_t index) {
  const std::lock_guard<std::mutex> lock(mutex_);
  cancelled_.at(index) = true;
}

void Inbox::cancel_all() {
  const std::lock_guard<std::mutex> lock(mutex_);
  cancelled_.assign(cancelled_.size(), true);
}

bool Inbox::cancelled(size_t index) const {
  const std::lock_guard<std::mutex> lock(mutex_);
  return cancelled_.at(index);
}

}  // namespace refract
