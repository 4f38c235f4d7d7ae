#include "report/page/figures.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>

#include "report/page/traces.h"

namespace refract {
namespace {

using nlohmann::json;

constexpr size_t kManySeries = 8;  // from here on a legend stands beside the plot

json rows(const std::vector<std::vector<double>>& matrix) {
  json list = json::array();
  for (const std::vector<double>& row : matrix) list.push_back(values(row));
  return list;
}

json axis(const std::string& label, bool log) {
  json out = {{"title", {{"text", plain(label)}, {"standoff", 8}}},
              {"zeroline", false},
              {"ticks", "outside"},
              {"automargin", true},
              {"exponentformat", "power"},
              {"minexponent", 5},
              {"separatethousands", true},
              {"nticks", 8}};
  if (log) out["type"] = "log";  // the page's script chooses its ticks
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

// Colours are the page's affair, whose script knows whether it is dark.
json layout(const std::string& x_label, const std::string& y_label, bool log_x, bool log_y) {
  return {{"xaxis", axis(x_label, log_x)},
          {"yaxis", axis(y_label, log_y)},
          {"margin", {{"l", 64}, {"r", 36}, {"t", 26}, {"b", 48}}},
          {"font", {{"family", "inherit"}, {"size", 13}}},
          {"paper_bgcolor", "rgba(0,0,0,0)"},
          {"plot_bgcolor", "rgba(0,0,0,0)"},
          {"modebar", {{"bgcolor", "rgba(0,0,0,0)"}, {"orientation", "v"}}},
          {"hoverlabel", {{"namelength", -1}}}};
}

// Above the plot, left of the toolbar's column; a long one beside the plot, below a toolbar that
// lies above both.
void add_legend(json& layout, const std::vector<Series>& series) {
  const size_t shown =
      std::ranges::count_if(series, [](const Series& s) { return s.in_legend && !s.name.empty(); });
  layout["legend"] = {{"font", {{"size", 12}}}};
  if (shown > kManySeries) {
    layout["modebar"]["orientation"] = "h";
    layout["margin"]["t"] = 40;
    return;
  }
  layout["legend"].update(
      {{"orientation", "h"}, {"x", 0}, {"xanchor", "left"}, {"y", 1.02}, {"yanchor", "bottom"}});
}

json shades_json(const PlotSpec& spec) {
  json list = json::array();
  for (const Shade& s : spec.shades)
    list.push_back({{"from", value(s.from)}, {"to", value(s.to)}, {"label", plain(s.label)}});
  return list;
}

json levels_json(const PlotSpec& spec) {
  json list = json::array();
  for (const Level& level : spec.levels)
    list.push_back({{"y", value(level.y)}, {"label", plain(level.label)}});
  return list;
}

// And the labels of points that are named.
json notes_json(std::vector<Note> notes, const std::vector<Series>& series) {
  for (const Series& s : series) {
    if (!s.named) continue;
    for (size_t i = 0; i < s.labels.size(); ++i)
      notes.push_back({s.x.at(i), s.y.at(i), s.labels[i]});
  }
  json list = json::array();
  for (const Note& note : notes) {
    if (std::isfinite(note.x) && std::isfinite(note.y))
      list.push_back({{"x", value(note.x)}, {"y", value(note.y)}, {"text", plain(note.text)}});
  }
  return list;
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

// The toolbar lies above a grid, whose colour bar stands where the other plots have it.
void grid_layout(json& layout) {
  layout["modebar"]["orientation"] = "h";
  layout["margin"]["t"] = 34;
}

// 1, 2 and 5 of each decade, or whole decades where there are many.
std::vector<double> log_ticks(double low, double high) {
  std::vector<double> ticks;
  const bool many = high - low > 3;
  const auto first = static_cast<int>(std::floor(low)), last = static_cast<int>(std::floor(high));
  for (int decade = first; decade <= last; ++decade) {
    for (const double part : {1.0, 2.0, 5.0}) {
      if (many && part > 1) continue;
      const double tick = decade + std::log10(part);
      if (tick >= low - 1e-9 && tick <= high + 1e-9) ticks.push_back(std::pow(10, tick));
    }
  }
  return ticks;
}

void color_by_logarithm(json& field, const MatrixSpec& spec) {
  double low = std::numeric_limits<double>::infinity(), high = -low;
  json z = json::array(), text = json::array();
  for (const std::vector<double>& row : spec.values) {
    json logs = json::array(), words = json::array();
    for (const double number : row) {
      const double log = number > 0 && std::isfinite(number) ? std::log10(number) : NAN;
      if (std::isfinite(log)) low = std::min(low, log), high = std::max(high, log);
      logs.push_back(value(log));
      words.push_back(std::isfinite(log) ? fmt::format("{:.{}g}", number, spec.digits) : "");
    }
    z.push_back(std::move(logs));
    text.push_back(std::move(words));
  }
  field["z"] = std::move(z);
  field["text"] = std::move(text);
  if (spec.show_values) field["texttemplate"] = "%{text}";
  if (!(low <= high)) return;
  json places = json::array(), names = json::array();
  for (const double tick : log_ticks(low, high)) {
    places.push_back(value(std::log10(tick)));
    names.push_back(fmt::format("{:.3g}", tick));
  }
  field["colorbar"].update(
      {{"tickmode", "array"}, {"tickvals", std::move(places)}, {"ticktext", std::move(names)}});
}

void check_grid(const std::string& plot, const std::vector<std::vector<double>>& grid,
                size_t height, size_t width) {
  check_size(plot, "the grid's height", grid.size(), height);
  for (const std::vector<double>& row : grid) check_size(plot, "a grid's row", row.size(), width);
}

}  // namespace

std::pair<double, double> common_y_range(const std::vector<PlotSpec>& plots) {
  double low = std::numeric_limits<double>::infinity(), high = -low;
  for (const PlotSpec& plot : plots) {
    for (const Series& s : plot.series) {
      for (const double y : s.y) {
        if (std::isfinite(y)) low = std::min(low, y), high = std::max(high, y);
      }
    }
  }
  if (!(low <= high)) return {0, 0};
  const double margin = low < high ? 0.06 * (high - low) : 0.5;
  return {low - margin, high + margin};
}

std::string figure_json(const PlotSpec& spec) {
  json shape = layout(spec.x_label, spec.y_label, spec.log_x, spec.log_y);
  add_legend(shape, spec.series);
  shape["hovermode"] = "closest";
  shape.update({{"barmode", "group"}, {"bargap", 0.4}});
  if (spec.y_range.first < spec.y_range.second) {
    shape["yaxis"]["range"] = values({spec.y_range.first, spec.y_range.second});
  }
  if (spec.y_from_zero) shape["yaxis"]["range"] = range_from_zero(spec.series);
  if (!spec.x_names.empty()) name_ticks(shape["xaxis"], spec.x_names);
  json traces = make_traces(spec.title, spec.series, spec.colors, spec.other_x);
  return script_text({{"data", std::move(traces["data"])},
                      {"layout", std::move(shape)},
                      {"smoothing", spec.smoothing},
                      {"shades", shades_json(spec)},
                      {"levels", levels_json(spec)},
                      {"notes", notes_json(spec.notes, spec.series)},
                      {"other_x", std::move(traces["other_x"])}});
}

std::string figure_json(const ContourSpec& spec) {
  check_grid(spec.title, spec.z, spec.y.size(), spec.x.size());
  json shape = layout(spec.x_label, spec.y_label, false, false);
  grid_layout(shape);
  if (spec.equal_axes) shape["yaxis"].update({{"scaleanchor", "x"}, {"constrain", "domain"}});
  if (spec.equal_axes) shape["xaxis"]["constrain"] = "domain";
  json field = grid_trace("contour", spec.z, spec.z_label);
  field.update({{"x", values(spec.x)},
                {"y", values(spec.y)},
                {"ncontours", 24},
                {"line", {{"width", 0.6}}},
                {"contours", {{"coloring", "heatmap"}}},
                {"hovertemplate", "x %{x:.4g}, y %{y:.4g}: %{z:.5g}<extra></extra>"}});
  if (spec.z_range.first < spec.z_range.second) {
    field.update({{"zmin", value(spec.z_range.first)},
                  {"zmax", value(spec.z_range.second)},
                  {"zauto", false}});
  }
  json data = make_traces(spec.title, spec.series, 0, {})["data"];
  for (json& trace : data) trace["showlegend"] = false;  // its points are named
  data.insert(data.begin(), std::move(field));
  return script_text({{"data", std::move(data)},
                      {"layout", std::move(shape)},
                      {"notes", notes_json({}, spec.series)}});
}

std::string figure_json(const MatrixSpec& spec) {
  check_grid(spec.title, spec.values, spec.rows.size(), spec.columns.size());
  json shape = layout(spec.column_label, spec.row_label, false, false);
  grid_layout(shape);
  name_ticks(shape["xaxis"], spec.columns);
  name_ticks(shape["yaxis"], spec.rows);
  for (const char* name : {"xaxis", "yaxis"}) shape[name].update({{"showgrid", false}});
  shape["yaxis"]["autorange"] = "reversed";
  json field = grid_trace("heatmap", spec.values, spec.value_label);
  field.update({{"xgap", 1}, {"ygap", 1}});
  if (spec.diverging) field.update({{"colorscale", "RdBu"}, {"reversescale", true}, {"zmid", 0}});
  if (spec.log_colors) color_by_logarithm(field, spec);
  if (spec.show_values && !spec.log_colors) {
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
  field["hovertemplate"] = spec.log_colors ? "%{customdata}: %{text}<extra></extra>"
                                           : "%{customdata}: %{z:.5g}<extra></extra>";
  return script_text({{"data", json::array({std::move(field)})}, {"layout", std::move(shape)}});
}

}  // namespace refract
