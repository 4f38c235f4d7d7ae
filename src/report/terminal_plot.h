// A line plot of characters.
#pragma once
#include <string>
#include <vector>

namespace refract {

struct TerminalSeries {
  std::string name;
  char mark = '*';
  std::vector<double> x, y;  // the same length, x ascending; values that are not finite are gaps
};

// Axes with the least and the largest value, a line of marks per series (a later one lies on top),
// a legend where there are several. Empty where no value is finite.
std::string terminal_plot(const std::vector<TerminalSeries>& series, const std::string& x_label,
                          const std::string& y_label, int width = 64, int height = 12);

}  // namespace refract
