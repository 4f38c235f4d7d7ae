// Progress of long work: a bar on a terminal, a line every few seconds elsewhere.
#pragma once
#include <chrono>
#include <cstdint>
#include <string>

#include "core/progress.h"

namespace refract {

class ProgressLines {
 public:
  // `unit` is what is counted ("tokens").
  ProgressLines(const std::string& label, const std::string& unit, int64_t total);
  void update(int64_t done);
  void finish() { bar_.finish(); }

 private:
  std::string label_, unit_;
  int64_t total_;
  Progress bar_;
  std::chrono::steady_clock::time_point start_, last_line_;
};

}  // namespace refract
