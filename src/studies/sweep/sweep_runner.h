// Runs a sweep's runs as processes of this program.
#pragma once
#include <sys/types.h>

#include <chrono>
#include <filesystem>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "core/progress.h"
#include "report/sweep/sweep_record.h"

namespace refract {

// Holds the sweep's folder for this process and for the runs that it starts: they inherit the lock,
// so that a sweep that was killed is taken up only when its runs have ended. Waits up to a minute
// for them; Error where the folder is still held then.
class SweepLock {
 public:
  explicit SweepLock(const std::filesystem::path& folder);
  ~SweepLock();
  SweepLock(const SweepLock&) = delete;
  SweepLock& operator=(const SweepLock&) = delete;

 private:
  int fd_ = -1;
};

// A run is a process group of its own, so that a signal for it, or its crash, reaches no other. It
// gets SIGTERM (saves and ends) when it has diverged, when the sweep is told to stop, and when the
// sweep dies. Its standard error is in output.txt of its folder.
class SweepRunner {
 public:
  struct Options {
    std::filesystem::path folder;
    int64_t jobs = 1;
    double margin = 0.5;  // nats, see divergence()
    // Arguments of `refract` for a run of the sweep.
    std::function<std::vector<std::string>(const SweepRun&)> arguments;
    std::function<void()> on_change;  // a run has ended
  };
  SweepRunner(Options options, SweepRecord& sweep);

  // Runs those of the sweep's runs (by place) that have not finished or diverged; returns false if
  // a signal ended it early.
  bool run(const std::vector<size_t>& wanted);

 private:
  struct Child {
    size_t run = 0;
    int64_t slot = 0;  // of `jobs`: picks the GPU where there are several
    std::string diverged = {};
    std::chrono::steady_clock::time_point next_look{};
    std::chrono::steady_clock::time_point started{};
    double share = 0, first_share = 0;  // of its steps: done now, and when it was started
  };
  using Children = std::map<pid_t, Child>;

  void start_next(std::vector<size_t>& waiting);
  void reap();
  void watch();
  void end(const Child& child, int status);
  void set_state(size_t run, SweepState state, const std::string& reason = "");
  void show();
  void look_at(Child& child);
  std::string place_text(size_t run) const;  // "3 of 8"
  std::string time_left() const;             // "2:10", empty while nothing is known
  int64_t free_slot() const;

  Options options_;
  SweepRecord& sweep_;
  Children children_;
  Progress progress_;
  std::chrono::steady_clock::time_point begun_{};
  std::vector<size_t> wanted_;  // places of the runs that this call is for
  size_t waiting_ = 0;
  double worked_ = 0;  // runs' worth of steps that this call has done in runs that ended
  int64_t ended_ = 0;
  bool stopping_ = false;
};

}  // namespace refract
