// A progress bar on a terminal, plain lines elsewhere; always on standard error.
#pragma once
#include <chrono>
#include <cstdint>
#include <string>

namespace refract {

class Progress {
 public:
  // `total` units of work, `done` of them finished before this process (a resumed run).
  Progress(std::string label, int64_t total, int64_t done = 0);
  ~Progress();
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;

  // `note` stands behind the bar. On a terminal redrawn at most ten times a second; elsewhere
  // nothing is printed here, since whoever reports figures prints its own lines.
  void update(int64_t done, const std::string& note = "");
  void finish();

  static bool on_terminal();

 private:
  void draw(int64_t done, const std::string& note);
  std::string label_;
  int64_t total_, first_;
  std::chrono::steady_clock::time_point start_, last_draw_{};
  bool finished_ = false;
};

// Wipes a bar that stands on the current terminal line, so that a message can be printed there.
void clear_progress_line();

// "1:02:03" or "4:05", for a time in seconds.
std::string format_duration(double seconds);
// "950", "12.3k", "4.56M", "1.23G".
std::string format_count(double value);
// "512 B", "1.5 MiB".
std::string format_bytes(double bytes);

}  // namespace refract
