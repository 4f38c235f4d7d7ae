#include "runs/progress/progress_lines.h"

#include <algorithm>

#include "core/log.h"

namespace refract {
namespace {

using Clock = std::chrono::steady_clock;

constexpr auto kInterval = std::chrono::seconds(5);

}  // namespace

ProgressLines::ProgressLines(const std::string& label, const std::string& unit, int64_t total)
    : label_(label),
      unit_(unit),
      total_(total),
      bar_(label, total),
      start_(Clock::now()),
      last_line_(start_) {}

void ProgressLines::update(int64_t done) {
  bar_.update(done);
  const auto now = Clock::now();
  if (Progress::on_terminal() || done <= 0 || done >= total_ || now - last_line_ < kInterval)
    return;
  last_line_ = now;
  const double elapsed = std::chrono::duration<double>(now - start_).count();
  const double left = elapsed * static_cast<double>(total_ - done) / static_cast<double>(done);
  log_info("{}: {} of {} {}, {} left", label_, format_count(static_cast<double>(done)),
           format_count(static_cast<double>(total_)), unit_, format_duration(left));
}

}  // namespace refract
