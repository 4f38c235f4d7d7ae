// Signs of life: a thread in every process gives them, and ends the process where another failed,
// is gone or stands still, also while the main thread waits in a collective for ever. A second
// thread does so where the first gets no answer from the store.
#pragma once
#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "distributed/rendezvous.h"

namespace refract {

// Why all processes end, and what for the terminal: the first to know sets it.
struct Cause {
  int code = 1;  // the exit code
  std::string host, text;
  std::string encoded() const;
  static Cause decoded(const std::string& text);
};

// "process 1 (node3, pid 4711)", as the others left it when they joined.
std::string describe_process(Rendezvous& store, int64_t rank);
std::string own_description();
std::string own_host();

class Watch {
 public:
  // Process 0 watches all others, the others watch process 0. `name_of_first` describes it: once
  // its store is gone nobody can ask.
  Watch(const Ranks& ranks, int64_t connect_seconds, std::string name_of_first);
  ~Watch() { stop(); }
  Watch(const Watch&) = delete;
  Watch& operator=(const Watch&) = delete;

  // A process that gives no sign for so long counts as gone.
  void set_timeout(double seconds) { timeout_ = seconds; }
  void stop();

  // To the terminal and the log.
  static void say(const std::string& text);
  // Ends this process because of another's failure; quietly, unless nobody else would tell.
  [[noreturn]] static void leave(Rendezvous& store, const Ranks& ranks, const Cause& cause);
  // Tells the others first; where one of them was first, leaves because of that.
  static void announce(Rendezvous& store, const Ranks& ranks, const Cause& cause);
  // Process 0 keeps the store that it hosts until all have seen how it ended, for a second or two;
  // it does not wait for `gone`.
  static void linger(Rendezvous& store, const Ranks& ranks, int64_t gone = -1);

 private:
  void run();
  void guard();
  void poll();
  void look_for_silence();
  [[noreturn]] void end(const std::string& text, int64_t gone);
  // The same where the store can't be asked: of the others one is enough to tell.
  [[noreturn]] void end_without_store(const std::string& text) const;
  std::string silence(const std::string& who) const;
  int64_t most_silent_polls() const;

  const Ranks ranks_;
  const std::string name_of_first_;
  Rendezvous store_;
  std::vector<std::string> watched_, signs_;  // keys, and what stood there last
  std::vector<int64_t> silent_polls_;
  int64_t beats_ = 0;
  std::atomic<double> timeout_ = 8;
  std::atomic<int64_t> polls_ = 0;
  std::mutex mutex_;
  std::condition_variable wake_;
  bool stopping_ = false, stopped_ = false;
  std::thread thread_, guard_;
};

std::string sign_key(int64_t rank);

}  // namespace refract
