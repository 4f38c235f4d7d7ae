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
  bool named = false;                       // the labels stand beside the points
  std::vector<double> low = {}, high = {};  // a band around the curve, as many as y, or empty
  // The same points on the plot's other x axes (PlotSpec::other_x), one list each, or empty.
  std::vector<std::vector<double>> other_x = {};
};

// A part of the x axis that is shaded ("guided"), a horizontal line ("threshold"), a text at a
// point of the plot.
struct Shade {
  double from = 0, to = 0;
  std::string label = {};
};
struct Level {
  double y = 0;
  std::string label = {};
};
struct Note {
  double x = 0, y = 0;
  std::string text = {};
};

struct PlotSpec {
  std::string title = {}, x_label = {}, y_label = {};
  bool log_x = false, log_y = false;
  bool y_from_zero = false;
  // The part of a linear y axis that is seen first; equal: all. A double click shows the rest.
  std::pair<double, double> y_range = {0, 0};
  std::vector<Series> series = {};
  std::vector<Shade> shades = {};
  std::vector<Level> levels = {};
  std::vector<Note> notes = {};
  // Labels of further x axes that the page's control chooses from, {"tokens", ...}; x itself is the
  // first choice. A series without them is hidden on those axes.
  std::vector<std::string> other_x = {};
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
  std::vector<Series> series = {};             // points and lines above it (the models, a path)
  bool equal_axes = true;                      // one unit is as long in x as in y
  std::pair<double, double> z_range = {0, 0};  // of the colours; equal: that of z
  int height = 560;
};

// A heat map: values[i][j] belongs to rows[i] and columns[j].
struct MatrixSpec {
  std::string title = {}, row_label = {}, column_label = {}, value_label = {};
  std::vector<std::string> rows = {}, columns = {};
  std::vector<std::vector<double>> values = {};
  bool show_values = true;  // write each value, to `digits` significant digits, into its cell
  int digits = 3;
  bool diverging = false;   // colours centred on zero
  bool log_colors = false;  // colours by the logarithm; values that are not above 0 become gaps
  int height = 0;           // 0: by the number of rows
  bool half_width = false;
};

// The smallest range that holds all finite y of the plots: for panels that are compared. (0, 0)
// where there are none.
std::pair<double, double> common_y_range(const std::vector<PlotSpec>& plots);

// JSON text for a <script> element: {"data", "layout"} as Plotly takes them, and of a plot
// "smoothing", "shades", "levels", "notes" and "other_x", which the page's script draws. Errors (a
// program's own mistake): lengths that don't agree.
std::string figure_json(const PlotSpec& spec);
std::string figure_json(const ContourSpec& spec);
std::string figure_json(const MatrixSpec& spec);

}  // namespace refract
