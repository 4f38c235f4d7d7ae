#include "core/progress.h"

#include <fmt/format.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <cmath>
#include <cstdio>

#include "core/log.h"

namespace refract {
namespace {

bool line_in_use = false;

int terminal_width() {
  winsize size{};
  return ioctl(STDERR_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0 ? size.ws_col : 80;
}

}  // namespace

bool Progress::on_terminal() {
  static const bool terminal = isatty(STDERR_FILENO);
  return terminal && logs_to_terminal();
}

void clear_progress_line() {
  if (!line_in_use) return;
  std::fputs("\r\033[K", stderr);
  line_in_use = false;
}

Progress::Progress(std::string label, int64_t total, int64_t done)
    : label_(std::move(label)),
      total_(std::max<int64_t>(total, 1)),
      first_(done),
      start_(std::chrono::steady_clock::now()) {}

Progress::~Progress() { finish(); }

void Progress::update(int64_t done, const std::string& note) {
  if (!on_terminal() || finished_) return;
  const auto now = std::chrono::steady_clock::now();
  if (done < total_ && now - last_draw_ < std::chrono::milliseconds(100)) return;
  last_draw_ = now;
  draw(done, note);
}

void Progress::draw(int64_t done, const std::string& note) {
  const double elapsed =
      std::chrono::duration<double>(std::chrono::steady_clock::now() - start_).count();
  const int64_t here = done - first_;
  const std::string eta = here > 0 ? format_duration(elapsed * static_cast<double>(total_ - done) /
                                                     static_cast<double>(here))
                                   : "-:--";
  constexpr int kWidth = 24;
  const int full = static_cast<int>(kWidth * done / total_);
  std::string bar;
  for (int i = 0; i < kWidth; ++i) bar += i < full ? "█" : "░";
  const int width = terminal_width();
  std::string tail = fmt::format(" {:3d}%  {}/{}  {} left  {}",
                                 static_cast<int>(100 * done / total_), done, total_, eta, note);
  const int used = static_cast<int>(label_.size()) + 1 + kWidth;
  if (used + static_cast<int>(tail.size()) >= width) tail.resize(std::max(0, width - used - 1));
  std::fprintf(stderr, "\r\033[K%s %s%s", label_.c_str(), bar.c_str(), tail.c_str());
  std::fflush(stderr);
  line_in_use = true;
}

void Progress::finish() {
  if (finished_) return;
  finished_ = true;
  clear_progress_line();
}

std::string format_duration(double seconds) {
  const int64_t total = std::llround(seconds);
  const int64_t h = total / 3600, m = total / 60 % 60, s = total % 60;
  return h > 0 ? fmt::format("{}:{:02}:{:02}", h, m, s) : fmt::format("{}:{:02}", m, s);
}

std::string format_count(double value) {
  if (value < 1e3) return fmt::format("{:.0f}", value);
  if (value < 1e6) return fmt::format("{:.1f}k", value / 1e3);
  if (value < 1e9) return fmt::format("{:.2f}M", value / 1e6);
  if (value < 1e12) return fmt::format("{:.2f}G", value / 1e9);
  return fmt::format("{:.2f}T", value / 1e12);
}

std::string format_bytes(double bytes) {
  constexpr const char* kUnits[] = {"B", "KiB", "MiB", "GiB", "TiB"};
  int unit = 0;
  while (bytes >= 1024 && unit < 4) {
    bytes /= 1024;
    ++unit;
  }
  return unit == 0 ? fmt::format("{:.0f} B", bytes) : fmt::format("{:.1f} {}", bytes, kUnits[unit]);
}

}  // namespace refract
