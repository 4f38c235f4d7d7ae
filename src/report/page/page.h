// One self-contained HTML page: headings, text, tables and interactive plots, readable without a
// network. Plotly's JavaScript (4.8 MB) is written into the page where it has a plot.
//     Page page("Barrier between two runs");
//     page.heading("Loss along the path");
//     page.plot({.title = "Loss", .x_label = "alpha", .y_label = "loss (nats)",
//                .series = {{.name = "linear", .x = alphas, .y = losses, .error = deviations}}});
//     page.write(folder / "report.html");
// The page's foot says when, by which version and by which command it was written.
// Texts are escaped. Numbers that are not finite become gaps.
#pragma once
#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "report/page/figures.h"
#include "report/table.h"

namespace refract {

class Page {
 public:
  explicit Page(std::string title, std::string subtitle = "");

  // A line of the page's head: "device", "NVIDIA H200". Nothing where the value is empty.
  void fact(const std::string& name, const std::string& value);
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
  std::string controls() const;
  std::string title_, subtitle_, facts_, body_;
  int64_t figures_ = 0;
  bool in_row_ = false;     // figures that follow each other share a row
  bool smoothing_ = false;  // the page needs its smoothing control
  // Of the plots that have several: the label of their own x axis, and of the others.
  std::string x_label_;
  std::vector<std::string> other_x_;
};

}  // namespace refract
