#include "report/page/figures.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdlib>
#include <nlohmann/json.hpp>

#include "core/error.h"

namespace refract {
namespace {

using nlohmann::json;

constexpr const char* kGrid = "#e8ebf0";
constexpr size_t kManySeries = 8;  // from here on a legend stands beside the plot

// What the mouse and the eye can tell apart: seven digits, which halves the page.
json value(double number) {
  if (!std::isfinite(number)) return nullptr;
  return std::strtod(fmt::format("{:.7g}", number).c_str(), nullptr);
}

json values(const std::vector<double>& numbers) {
  json list = json::array();
  for (const double number : numbers) list.push_back(value(number));
  return list;
}

json rows(const std::vector<std::vector<double>>& matrix) {
  json list = json::array();
  for (const std::vector<double>& row : matrix) list.push_back(values(row));
  return list;
}

// Plotly reads a few tags and entities in its texts.
std::string plain(const std::string& text) {
  std::string out;
  for (const char c : text) {
    if (c == '&') {
      out += "&amp;";
    } else if (c == '<') {
      out += "&lt;";
    } else if (c == '>') {
      out += "&gt;";
    } else {
      out += c;
    }
  }
  return out;
}

json plain(const std::vector<std::string>& texts) {
  json list = json::array();
  for (const std::string& text : texts) list.push_back(plain(text));
  return list;
}

void check_size(const std::string& plot, const char* what, size_t have, size_t want) {
  if (have != want) fail("plot '{}': {} has {} values where {} are needed", plot, what, have, want);
}

json axis(const std::string& label, bool log) {
  json out = {{"title", {{"text", plain(label)}, {"standoff", 8}}},
              {"gridcolor", kGrid},
              {"zeroline", false},
              {"linecolor", "#98a2b3"},
              {"ticks", "outside"},
              {"tickcolor", "#98a2b3"},
              {"automargin", true},
              {"exponentformat", "power"},
              {"minexponent", 5},
              {"separatethousands", true},
              {"nticks", 8}};
  if (log) {
    out["type"] = "log";
    out["minor"] = {{"ticks", "outside"}, {"ticklen", 3}, {"tickcolor", "#98a2b3"}};
  }
  return out;
}

// Names in place of the numbers 0, 1, 2, ...
void name_ticks(json& axis, const std::vector<std::string>& names) {
  json places = json::array();
  for (size_t i = 0; i < names.size(); ++i) places.push_back(i);
  axis["tickmode"] = "array";
  axis["tickvals"] = std::move(places);
  axis["ticktext"] = plain(names);
}

json layout(const std::string& x_label, const std::string& y_label, bool log_x, bool log_y) {
  return {
      {"xaxis", axis(x_label, log_x)},
      {"yaxis", axis(y_label, log_y)},
      {"margin", {{"l", 64}, {"r", 20}, {"t", 22}, {"b", 48}}},
      {"font", {{"family", "inherit"}, {"size", 13}, {"color", "#1f2430"}}},
      {"paper_bgcolor", "rgba(0,0,0,0)"},
      {"plot_bgcolor", "rgba(0,0,0,0)"},
      {"modebar", {{"bgcolor", "rgba(0,0,0,0)"}, {"color", "#c2c8d0"}, {"activecolor", "#2563c9"}}},
      {"hoverlabel", {{"namelength", -1}}}};
}

json legend(const std::vector<Series>& series) {
  const size_t shown =
      std::ranges::count_if(series, [](const Series& s) { return s.in_legend && !s.name.empty(); });
  json out = {{"bgcolor", "rgba(255,255,255,0.7)"}, {"font", {{"size", 12}}}};
  if (shown > kManySeries) return out;
  out.update(
      {{"orientation", "h"}, {"x", 0}, {"xanchor", "left"}, {"y", 1.02}, {"yanchor", "bottom"}});
  return out;
}

json marker(const Series& series, const std::string& color) {
  json out = {{"color", color}};
  if (series.mode != SeriesMode::kBars) out["size"] = 7;
  return out;
}

json trace(const std::string& plot, const Series& series, const std::string& color) {
  check_size(plot, "x", series.x.size(), series.y.size());
  json out = {{"x", values(series.x)},
              {"y", values(series.y)},
              {"name", plain(series.name)},
              {"marker", marker(series, color)},
              {"showlegend", series.in_legend && !series.name.empty()}};
  if (series.mode == SeriesMode::kBars) {
    out["type"] = "bar";
  } else {
    out["type"] = "scatter";
    out["mode"] = series.mode == SeriesMode::kLines     ? "lines"
                  : series.mode == SeriesMode::kMarkers ? "markers"
                                                        : "lines+markers";
    out["line"] = {{"color", color}, {"width", 1.8}, {"dash", series.dashed ? "dash" : "solid"}};
  }
  if (!series.error.empty()) {
    check_size(plot, "error", series.error.size(), series.y.size());
    out["error_y"] = {{"type", "data"}, {"array", values(series.error)}, {"thickness", 1.2}};
  }
  if (!series.labels.empty()) {
    check_size(plot, "labels", series.labels.size(), series.y.size());
    out["text"] = plain(series.labels);
    out["textposition"] = "none";
  }
  return out;
}

json traces(const std::string& plot, const std::vector<Series>& series, int64_t colors) {
  json data = json::array();
  const int64_t count = std::max<int64_t>(colors, static_cast<int64_t>(series.size()));
  for (size_t i = 0; i < series.size(); ++i) {
    const int64_t color = series[i].color >= 0 ? series[i].color : static_cast<int64_t>(i);
    data.push_back(trace(plot, series[i], series_color(color, count)));
  }
  return data;
}

// Plotly's own range of a constant curve is that value +- 1.
json range_from_zero(const std::vector<Series>& series) {
  double top = 0;
  for (const Series& s : series) {
    for (const double y : s.y) {
      if (std::isfinite(y)) top = std::max(top, y);
    }
  }
  return json::array({0, value(top > 0 ? 1.06 * top : 1)});
}

// For an element <script type="application/json">: '<' stands in strings only.
std::string script_text(const json& figure) {
  std::string out;
  for (const char c : figure.dump(-1, ' ', false, json::error_handler_t::replace)) {
    if (c == '<') {
      out += "\\u003c";
    } else {
      out += c;
    }
  }
  return out;
}

json grid_trace(const char* type, const std::vector<std::vector<double>>& z,
                const std::string& label) {
  return {
      {"type", type},
      {"z", rows(z)},
      {"colorscale", "Viridis"},
      {"colorbar",
       {{"title", {{"text", plain(label)}, {"side", "right"}}}, {"thickness", 14}, {"len", 1}}}};
}

void check_grid(const std::string& plot, const std::vector<std::vector<double>>& grid,
                size_t height, size_t width) {
  check_size(plot, "the grid's height", grid.size(), height);
  for (const std::vector<double>& row : grid) check_size(plot, "a grid's row", row.size(), width);
}

std::string hex_of_hue(double hue, double saturation, double lightness) {
  const auto channel = [&](double offset) {
    const double k = std::fmod(offset + hue / 30, 12);
    const double a = saturation * std::min(lightness, 1 - lightness);
    const double level = lightness - a * std::max(-1.0, std::min({k - 3, 9 - k, 1.0}));
    return static_cast<int>(std::lround(255 * level));
  };
  return fmt::format("#{:02x}{:02x}{:02x}", channel(0), channel(8), channel(4));
}

}  // namespace

std::string series_color(int64_t index, int64_t count) {
  static constexpr std::array<const char*, 10> kFew = {"#2563c9", "#e8710a", "#2a9d4a", "#c8313b",
                                                       "#7b4bc4", "#8a5a44", "#d64c9b", "#5f6b7a",
                                                       "#a38a00", "#0f9fb0"};
  if (count <= static_cast<int64_t>(kFew.size())) {
    return kFew.at(static_cast<size_t>(index) % kFew.size());
  }
  // Neighbours differ in lightness as well as in hue.
  const double hue = 360.0 * static_cast<double>(index % count) / static_cast<double>(count);
  return hex_of_hue(hue, 0.62, index % 2 == 0 ? 0.36 : 0.54);
}

std::string figure_json(const PlotSpec& spec) {
  json shape = layout(spec.x_label, spec.y_label, spec.log_x, spec.log_y);
  shape["legend"] = legend(spec.series);
  shape["hovermode"] = "closest";
  shape.update({{"barmode", "group"}, {"bargap", 0.4}});
  if (spec.y_range.first < spec.y_range.second) {
    shape["yaxis"]["range"] = values({spec.y_range.first, spec.y_range.second});
  }
  if (spec.y_from_zero) shape["yaxis"]["range"] = range_from_zero(spec.series);
  if (!spec.x_names.empty()) name_ticks(shape["xaxis"], spec.x_names);
  return script_text({{"data", traces(spec.title, spec.series, spec.colors)},
                      {"layout", std::move(shape)},
                      {"smoothing", spec.smoothing}});
}

std::string figure_json(const ContourSpec& spec) {
  check_grid(spec.title, spec.z, spec.y.size(), spec.x.size());
  json shape = layout(spec.x_label, spec.y_label, false, false);
  shape["legend"] = legend(spec.series);
  if (spec.equal_axes) shape["yaxis"].update({{"scaleanchor", "x"}, {"constrain", "domain"}});
  if (spec.equal_axes) shape["xaxis"]["constrain"] = "domain";
  json field = grid_trace("contour", spec.z, spec.z_label);
  field.update({{"x", values(spec.x)},
                {"y", values(spec.y)},
                {"ncontours", 24},
                {"line", {{"width", 0.6}}},
                {"contours", {{"coloring", "heatmap"}}},
                {"hovertemplate", "x %{x:.4g}, y %{y:.4g}: %{z:.5g}<extra></extra>"}});
  json data = traces(spec.title, spec.series, 0);
  data.insert(data.begin(), std::move(field));
  return script_text({{"data", std::move(data)}, {"layout", std::move(shape)}});
}

std::string figure_json(const MatrixSpec& spec) {
  check_grid(spec.title, spec.values, spec.rows.size(), spec.columns.size());
  json shape = layout(spec.column_label, spec.row_label, false, false);
  name_ticks(shape["xaxis"], spec.columns);
  name_ticks(shape["yaxis"], spec.rows);
  for (const char* name : {"xaxis", "yaxis"}) shape[name].update({{"showgrid", false}});
  shape["yaxis"]["autorange"] = "reversed";
  json field = grid_trace("heatmap", spec.values, spec.value_label);
  field.update({{"xgap", 1}, {"ygap", 1}});
  if (spec.diverging) field.update({{"colorscale", "RdBu"}, {"reversescale", true}, {"zmid", 0}});
  if (spec.show_values) {
    field["texttemplate"] = fmt::format("%{{z:.{}~g}}", spec.digits);
  }
  json names = json::array();
  for (const std::string& row : spec.rows) {
    json line = json::array();
    for (const std::string& column : spec.columns) {
      line.push_back(plain(fmt::format("{}, {}", row, column)));
    }
    names.push_back(std::move(line));
  }
  field["customdata"] = std::move(names);
  field["hovertemplate"] = "%{customdata}: %{z:.5g}<extra></extra>";
  return script_text({{"data", json::array({std::move(field)})}, {"layout", std::move(shape)}});
}

}  // namespace refract
