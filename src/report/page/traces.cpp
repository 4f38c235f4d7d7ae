#include "report/page/traces.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdlib>
#include <nlohmann/json.hpp>
#include <utility>

#include "core/error.h"

namespace refract {
namespace {

using nlohmann::json;

json marker(const Series& series, const std::string& color) {
  json out = {{"color", color}};
  if (series.mode != SeriesMode::kBars) out["size"] = series.named ? 10 : 7;
  if (series.named) out["line"] = {{"color", "white"}, {"width", 1.5}};
  return out;
}

const char* mode_of(const Series& series) {
  if (series.mode == SeriesMode::kLines) return "lines";
  return series.mode == SeriesMode::kLinesMarkers ? "lines+markers" : "markers";
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
    out["mode"] = mode_of(series);
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

std::string translucent(const std::string& color) {
  const auto channel = [&](size_t at) { return std::stoi(color.substr(at, 2), nullptr, 16); };
  return fmt::format("rgba({},{},{},0.16)", channel(1), channel(3), channel(5));
}

// The two edges of a band; the second fills up to the first.
std::array<json, 2> band(const std::string& plot, const Series& series, const std::string& color) {
  check_size(plot, "low", series.low.size(), series.y.size());
  check_size(plot, "high", series.high.size(), series.y.size());
  std::array<json, 2> edges;
  for (size_t i = 0; i < edges.size(); ++i) {
    edges.at(i) = {{"x", values(series.x)},  {"y", values(i == 0 ? series.high : series.low)},
                   {"type", "scatter"},      {"mode", "lines"},
                   {"line", {{"width", 0}}}, {"hoverinfo", "skip"},
                   {"showlegend", false}};
  }
  edges[1].update({{"fill", "tonexty"}, {"fillcolor", translucent(color)}});
  return edges;
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

json value(double number) {
  if (!std::isfinite(number)) return nullptr;
  return std::strtod(fmt::format("{:.7g}", number).c_str(), nullptr);
}

json values(const std::vector<double>& numbers) {
  json list = json::array();
  for (const double number : numbers) list.push_back(value(number));
  return list;
}

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

json make_traces(const std::string& plot, const std::vector<Series>& series, int64_t colors,
                 const std::vector<std::string>& other_x) {
  json data = json::array(), choices = json::array();
  for (const std::string& label : other_x)
    choices.push_back({{"label", plain(label)}, {"x", json::array()}});
  const auto place_of = [&](size_t i) {
    return series[i].color >= 0 ? series[i].color : static_cast<int64_t>(i);
  };
  // Of all plots of a page that show the same things the colours are the same, however many helping
  // lines each has.
  int64_t count = colors;
  for (size_t i = 0; i < series.size(); ++i) count = std::max(count, place_of(i) + 1);
  for (size_t i = 0; i < series.size(); ++i) {
    const Series& one = series[i];
    const std::string color = series_color(place_of(i), count);
    if (!one.other_x.empty()) check_size(plot, "other x", one.other_x.size(), other_x.size());
    const size_t before = data.size();
    if (!one.low.empty() || !one.high.empty()) {
      for (json& edge : band(plot, one, color)) data.push_back(std::move(edge));
    }
    data.push_back(trace(plot, one, color));
    for (size_t choice = 0; choice < other_x.size(); ++choice) {
      json x;
      if (!one.other_x.empty()) {
        check_size(plot, other_x[choice].c_str(), one.other_x[choice].size(), one.y.size());
        x = values(one.other_x[choice]);
      }
      for (size_t added = before; added < data.size(); ++added) choices[choice]["x"].push_back(x);
    }
  }
  return {{"data", std::move(data)}, {"other_x", std::move(choices)}};
}

std::string series_color(int64_t index, int64_t count) {
  static constexpr std::array<const char*, 10> kFew = {"#2f6fd6", "#e8710a", "#2a9d4a", "#d2434d",
                                                       "#8a5cd0", "#a06a50", "#d64c9b", "#748193",
                                                       "#a38a00", "#0f9fb0"};
  if (count <= static_cast<int64_t>(kFew.size())) {
    return kFew.at(static_cast<size_t>(index) % kFew.size());
  }
  // Neighbours differ in lightness as well as in hue; all can be seen on white and on black.
  const double hue = 360.0 * static_cast<double>(index % count) / static_cast<double>(count);
  return hex_of_hue(hue, 0.62, index % 2 == 0 ? 0.42 : 0.58);
}

}  // namespace refract
