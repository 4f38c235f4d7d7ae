// The figures of a page: what they show, and the JSON that Plotly draws them from. Numbers that are
// not finite become gaps.
#pragma once
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

namespace refract {

enum class SeriesMode { kLines, kMarkers, kLinesMarkers, kBars };

struct Series {
  std::string name = {};
  std::vector<double> x = {}, y = {};  // the same length
  std::vector<double> error = {};      // half heights of error bars, as many as y, or empty
  SeriesMode mode = SeriesMode::kLines;
  std::vector<std::string> labels =
      {};  // shown when the mouse is over a point, as many as y, or empty
  // A number of one's own choice, the same in all plots of a page for what belongs together (a
  // run); -1: the series' place in the plot.
  int color = -1;
  bool dashed = false;
  bool in_legend = true;
};

struct PlotSpec {
  std::string title = {}, x_label = {}, y_label = {};
  bool log_x = false, log_y = false;
  bool y_from_zero = false;
  // The part of a linear y axis that is seen first; equal: all. A double click shows the rest.
  std::pair<double, double> y_range = {0, 0};
  std::vector<Series> series = {};
  int64_t colors = 0;  // how many numbers Series::color takes; 0: as many as there are series
  std::vector<std::string> x_names = {};  // names x = 0, 1, 2, ... (bars, kinds); empty: numbers
  bool smoothing = false;                 // the page's smoothing control acts on it
  int height = 420;                       // pixels
  bool half_width = false;                // two such plots in a row share a line
};

// Values on a grid: z[i][j] belongs to (x[j], y[i]).
struct ContourSpec {
  std::string title = {}, x_label = {}, y_label = {}, z_label = {};
  std::vector<double> x = {}, y = {};
  std::vector<std::vector<double>> z = {};
  std::vector<Series> series = {};  // points and lines above it (the models, a path)
  bool equal_axes = true;           // one unit is as long in x as in y
  int height = 560;
};

// A heat map: values[i][j] belongs to rows[i] and columns[j].
struct MatrixSpec {
  std::string title = {}, row_label = {}, column_label = {}, value_label = {};
  std::vector<std::string> rows = {}, columns = {};
  std::vector<std::vector<double>> values = {};
  bool show_values = true;  // write each value, to `digits` significant digits, into its cell
  int digits = 3;
  bool diverging = false;  // colours centred on zero
  int height = 0;          // 0: by the number of rows
  bool half_width = false;
};

// JSON text for a <script> element: {"data", "layout"} as Plotly takes them, and "smoothing" of a
// plot. Errors (a program's own mistake): lengths that don't agree.
std::string figure_json(const PlotSpec& spec);
std::string figure_json(const ContourSpec& spec);
std::string figure_json(const MatrixSpec& spec);

// "#rrggbb" of colour `index` of `count`: up to ten are easily told apart, more go round the
// colour wheel.
std::string series_color(int64_t index, int64_t count);

}  // namespace refract
