// One self-contained HTML page: headings, text, tables and interactive plots, readable without a
// network. Plotly's JavaScript (4.8 MB) is written into the page where it has a plot.
//     Page page("Barrier between two runs");
//     page.heading("Loss along the path");
//     page.plot({.title = "Loss", .x_label = "alpha", .y_label = "loss (nats)",
//                .series = {{.name = "linear", .x = alphas, .y = losses, .error = deviations}}});
//     page.write(folder / "report.html");
// Texts are escaped. Numbers that are not finite become gaps.
#pragma once
#include <cstdint>
#include <filesystem>
#include <string>
#include <utility>
#include <vector>

#include "report/table.h"

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

class Page {
 public:
  explicit Page(std::string title, std::string subtitle = "");

  void heading(const std::string& text);
  void subheading(const std::string& text);
  void paragraph(const std::string& text);
  void preformatted(const std::string& text);
  // Right-aligned columns hold numbers; a click on a column's head sorts by it.
  void table(const Table& table);
  // What follows, up to end_fold, is hidden behind one line that a click opens.
  void begin_fold(const std::string& summary);
  void end_fold();

  // Errors (a program's own mistake): lengths that don't agree.
  void plot(const PlotSpec& spec);
  void contour(const ContourSpec& spec);
  void matrix(const MatrixSpec& spec);

  // The whole page. Error where it has plots and Plotly can't be found: see plotly_script.
  std::string html() const;
  // Atomically. Folders are made.
  void write(const std::filesystem::path& path) const;

 private:
  void add(const std::string& element);
  void end_row();
  void figure(const std::string& title, const std::string& json, int height, bool half_width);
  std::string title_, subtitle_, body_;
  int64_t figures_ = 0;
  bool in_row_ = false;     // figures that follow each other share a row
  bool smoothing_ = false;  // the page needs its smoothing control
};

// "#rrggbb" of colour `index` of `count`: up to ten are easily told apart, more go round the
// colour wheel.
std::string series_color(int64_t index, int64_t count);

// Plotly's JavaScript: the file in REFRACT_PLOTLY, else share/refract/plotly.min.js beside the
// program's bin folder, else that of the plotly wheel in .venv of the checkout that holds the
// program. Error where there is none, saying what to do.
std::string plotly_script();

// Text for HTML: & < > " are escaped and invalid UTF-8 is replaced.
std::string escape_html(const std::string& text);

}  // namespace refract
