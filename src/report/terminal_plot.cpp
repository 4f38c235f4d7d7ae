#include "report/terminal_plot.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "report/table.h"

namespace refract {
namespace {

struct Range {
  double low = std::numeric_limits<double>::infinity();
  double high = -std::numeric_limits<double>::infinity();
  void take(double value) {
    if (!std::isfinite(value)) return;
    low = std::min(low, value);
    high = std::max(high, value);
  }
  bool any() const { return low <= high; }
  // 0 to cells - 1.
  int place(double value, int cells) const {
    if (high == low) return cells / 2;
    return static_cast<int>(std::lround((value - low) / (high - low) * (cells - 1)));
  }
};

// Marks the line between two neighbouring points, column by column.
void draw_segment(std::vector<std::string>& canvas, const TerminalSeries& series, size_t i,
                  const Range& x, const Range& y) {
  const int width = static_cast<int>(canvas[0].size()), height = static_cast<int>(canvas.size());
  const int from = x.place(series.x[i], width), to = x.place(series.x[i + 1], width);
  for (int column = from; column <= to; ++column) {
    const double part = from == to ? 0 : static_cast<double>(column - from) / (to - from);
    const double value = series.y[i] + part * (series.y[i + 1] - series.y[i]);
    canvas[height - 1 - y.place(value, height)][column] = series.mark;
  }
}

}  // namespace

std::string terminal_plot(const std::vector<TerminalSeries>& series, const std::string& x_label,
                          const std::string& y_label, int width, int height) {
  Range x, y;
  for (const TerminalSeries& s : series) {
    for (double value : s.x) x.take(value);
    for (double value : s.y) y.take(value);
  }
  if (!x.any() || !y.any()) return "";
  std::vector<std::string> canvas(height, std::string(width, ' '));
  for (const TerminalSeries& s : series) {
    for (size_t i = 0; i + 1 < s.x.size(); ++i) {
      if (std::isfinite(s.y[i]) && std::isfinite(s.y[i + 1])) draw_segment(canvas, s, i, x, y);
    }
  }
  const std::string top = format_number(y.high), bottom = format_number(y.low);
  const size_t margin = std::max(top.size(), bottom.size());
  std::string out = y_label + "\n";
  for (int row = 0; row < height; ++row) {
    std::string label = row == 0 ? top : row + 1 == height ? bottom : "";
    label.insert(0, margin - label.size(), ' ');
    out += label + " |" + canvas[row];
    out.erase(out.find_last_not_of(' ') + 1);
    out += '\n';
  }
  out += std::string(margin + 1, ' ') + "+" + std::string(width, '-') + "\n";
  const std::string low = format_number(x.low), high = format_number(x.high);
  std::string axis = std::string(margin + 2, ' ') + low;
  const size_t room = width - std::min<size_t>(width, low.size() + high.size());
  const size_t before = room > x_label.size() ? (room - x_label.size()) / 2 : 1;
  const size_t after = room > before + x_label.size() ? room - before - x_label.size() : 1;
  out += axis + std::string(before, ' ') + x_label + std::string(after, ' ') + high + "\n";
  if (series.size() > 1) {
    for (const TerminalSeries& s : series)
      out += std::string(margin + 2, ' ') + s.mark + " " + s.name + "\n";
  }
  return out;
}

}  // namespace refract
