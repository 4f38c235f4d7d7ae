// Between the model's thread and the thread of a request.
#pragma once
#include <chrono>
#include <condition_variable>
#include <mutex>
#include <vector>

#include "serve/engine/work.h"

namespace refract {

// Takes the news of a request's works. What it can hold is bounded by what the request asked for,
// so that the model never waits for a slow client. All members may be called by any thread.
class Inbox {
 public:
  explicit Inbox(size_t works) : cancelled_(works, false) {}

  void put(News news);
  // What has come, or nothing where nothing came for that long.
  std::vector<News> wait(std::chrono::milliseconds longest);

  // From here on nobody wants the work's news; the model leaves it at its next step.
  void cancel(size_t index);
  void cancel_all();
  bool cancelled(size_t index) const;

 private:
  mutable std::mutex mutex_;
  std::condition_variable came_;
  std::vector<News> news_;
  std::vector<bool> cancelled_;
};

}  // namespace refract
