// What a figure draws, as Plotly takes it: the curves, bars and points of a plot.
#pragma once
#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "report/page/figures.h"

namespace refract {

// A number as JSON: what the mouse and the eye can tell apart, seven digits; null if not finite.
nlohmann::json value(double number);
nlohmann::json values(const std::vector<double>& numbers);

// A text without what Plotly would read as tags and entities.
std::string plain(const std::string& text);
nlohmann::json plain(const std::vector<std::string>& texts);

// Error (a program's own mistake) where the lengths differ.
void check_size(const std::string& plot, const char* what, size_t have, size_t want);

// "data": what Plotly draws; "other_x": [{"label", "x": [for each trace its x on that axis, or
// null]}].
nlohmann::json make_traces(const std::string& plot, const std::vector<Series>& series,
                           int64_t colors, const std::vector<std::string>& other_x);

// "#rrggbb" of colour `index` of `count`: up to ten are easily told apart, more go round the
// colour wheel.
std::string series_color(int64_t index, int64_t count);

}  // namespace refract
