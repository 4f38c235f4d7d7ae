#include "studies/path_output.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>

#include "report/page/page.h"
#include "report/table.h"
#include "report/terminal_plot.h"

namespace refract {
namespace {

using nlohmann::json;

json numbers(const std::vector<double>& values) {
  json list = json::array();
  for (double value : values) list.push_back(finite_or_null(value));
  return list;
}

constexpr const char *kBefore = ", before alignment", *kAfter = ", aligned";

std::string share(double fraction) { return format_percent(fraction, 2); }

}  // namespace

json finite_or_null(double value) { return std::isfinite(value) ? json(value) : json(); }

std::vector<double> PathSplit::losses() const {
  std::vector<double> all;
  for (const Evaluation& point : points) all.push_back(point.loss);
  return all;
}

std::vector<double> PathSplit::errors() const {
  std::vector<double> all;
  for (const Evaluation& point : points) all.push_back(1 - point.accuracy);
  return all;
}

json barrier_json(const Barrier& b) {
  return {{"end_point_mean", finite_or_null(b.end_point_mean)},
          {"instability", finite_or_null(b.instability)},
          {"instability_relative", finite_or_null(b.relative_instability())},
          {"instability_alpha", b.instability_alpha},
          {"barrier", finite_or_null(b.barrier)},
          {"barrier_relative", finite_or_null(b.relative_barrier())},
          {"barrier_alpha", b.barrier_alpha}};
}

json path_json(const PathResult& result) {
  json out = {{"alphas", result.alphas},
              {"distance", finite_or_null(result.geometry.distance)},
              {"cosine", finite_or_null(result.geometry.cosine())},
              {"dot", finite_or_null(result.geometry.dot)},
              {"norm_a", finite_or_null(result.geometry.norm_a)},
              {"norm_b", finite_or_null(result.geometry.norm_b)},
              {"engine", result.engine},
              {"splits", json::object()}};
  for (size_t i = 0; i < result.splits.size(); ++i) {
    const PathSplit& split = result.splits[i];
    std::vector<double> perplexities, accuracies;
    for (const Evaluation& point : split.points) {
      perplexities.push_back(point.perplexity());
      accuracies.push_back(point.accuracy);
    }
    out["splits"][split.name] = {{"tokens", split.points.front().tokens},
                                 {"loss", numbers(split.losses())},
                                 {"perplexity", numbers(perplexities)},
                                 {"accuracy", numbers(accuracies)},
                                 {"error", numbers(split.errors())},
                                 {"loss_barrier", barrier_json(result.loss_barrier(i))},
                                 {"error_barrier", barrier_json(result.error_barrier(i))}};
  }
  return out;
}

std::string path_csv(const PathResult& result) {
  std::string out = "alpha,split,loss,perplexity,error\n";
  for (const PathSplit& split : result.splits) {
    for (size_t i = 0; i < result.alphas.size(); ++i) {
      const Evaluation& point = split.points[i];
      out += fmt::format("{},{},{},{},{}\n", result.alphas[i], split.name, point.loss,
                         point.perplexity(), 1 - point.accuracy);
    }
  }
  return out;
}

namespace {

// The rows of one path; `what` stands behind the name of a split.
void add_barriers(Table& table, const PathResult& result, const std::string& what) {
  for (size_t i = 0; i < result.splits.size(); ++i) {
    const PathSplit& split = result.splits[i];
    const auto add = [&](const std::string& quantity, const std::vector<double>& values,
                         const Barrier& b) {
      table.add_row({split.name + what, quantity, format_fixed(values.back(), 4),
                     format_fixed(values.front(), 4),
                     format_fixed(b.end_point_mean + b.instability, 4),
                     format_fixed(b.instability_alpha, 2), format_fixed(b.instability, 4),
                     share(b.relative_instability()), format_fixed(b.barrier, 4),
                     share(b.relative_barrier())});
    };
    add("loss", split.losses(), result.loss_barrier(i));
    add("token error", split.errors(), result.error_barrier(i));
  }
}

Table barrier_table(const PathResult& result, const PathResult* before) {
  Table table({{"split"},
               {"quantity"},
               {"A", Align::kRight},
               {"B", Align::kRight},
               {"worst", Align::kRight},
               {"at", Align::kRight},
               {"instability", Align::kRight},
               {"relative", Align::kRight},
               {"barrier", Align::kRight},
               {"relative", Align::kRight}});
  if (before) add_barriers(table, *before, kBefore);
  add_barriers(table, result, before ? kAfter : "");
  return table;
}

std::string geometry_text(const PathResult& result, const PathResult* before) {
  const auto text = [](const Geometry& geometry) {
    return fmt::format("{}, cosine {}", format_number(geometry.distance),
                       format_number(geometry.cosine()));
  };
  if (!before) return "distance " + text(result.geometry);
  return fmt::format("distance before alignment {}, after it {}", text(before->geometry),
                     text(result.geometry));
}

// The value on the line between the end points, from which a barrier is measured.
double on_chord(const std::vector<double>& values, double alpha) {
  return alpha * values.back() + (1 - alpha) * values.front();
}

// A split's curve, and thinner lines of its colour for its chord and its barrier.
void add_curve(PlotSpec& plot, const PathResult& path, Series curve, const Barrier& barrier) {
  const std::vector<double> values = curve.y;
  const int color = curve.color;
  curve.x = path.alphas;
  curve.mode = SeriesMode::kLinesMarkers;
  plot.series.push_back(std::move(curve));
  plot.series.push_back({.name = "chord",
                         .x = {0, 1},
                         .y = {values.front(), values.back()},
                         .color = color,
                         .dashed = true,
                         .in_legend = false});
  if (!std::isfinite(barrier.barrier) || barrier.barrier <= 0) return;
  const double at = barrier.barrier_alpha, foot = on_chord(values, at);
  plot.series.push_back({.name = "barrier",
                         .x = {at, at},
                         .y = {foot, foot + barrier.barrier},
                         .color = color,
                         .in_legend = false});
}

using ValuesOf = std::vector<double> (PathSplit::*)() const;
using BarrierOf = Barrier (PathResult::*)(size_t) const;

// The curves of all splits, and their barriers in one note above them: the splits' lie close to
// each other, and notes of their own would cover one another.
void add_split_curves(PlotSpec& plot, const PathResult& path, const std::string& what, bool dashed,
                      ValuesOf values_of, BarrierOf barrier_of) {
  Note note{.y = -std::numeric_limits<double>::infinity()};
  for (size_t i = 0; i < path.splits.size(); ++i) {
    const PathSplit& split = path.splits[i];
    const Barrier barrier = (path.*barrier_of)(i);
    const std::vector<double> values = (split.*values_of)();
    add_curve(
        plot, path,
        {.name = split.name + what, .y = values, .color = static_cast<int>(i), .dashed = dashed},
        barrier);
    if (!std::isfinite(barrier.barrier) || barrier.barrier <= 0) continue;
    const double top = on_chord(values, barrier.barrier_alpha) + barrier.barrier;
    if (top > note.y) note.x = barrier.barrier_alpha;
    note.y = std::max(note.y, top);
    const std::string of = path.splits.size() > 1 ? fmt::format(" ({})", split.name) : "";
    note.text += fmt::format("{}{}{}", note.text.empty() ? "barrier " : ", ",
                             format_number(barrier.barrier, 3), of);
  }
  if (!note.text.empty()) plot.notes.push_back(note);
}

PlotSpec path_plot(const PathResult& result, const PathResult* before, const std::string& title,
                   const std::string& unit, ValuesOf values_of, BarrierOf barrier_of) {
  PlotSpec plot{.title = title, .x_label = "alpha (0: B, 1: A)", .y_label = unit};
  plot.colors = static_cast<int64_t>(result.splits.size());
  if (before) add_split_curves(plot, *before, kBefore, true, values_of, barrier_of);
  add_split_curves(plot, result, before ? kAfter : "", false, values_of, barrier_of);
  // The ends, at the last split's losses.
  const std::vector<double> ends = (result.splits.back().*values_of)();
  plot.notes.push_back({0, ends.front(), "B"});
  plot.notes.push_back({1, ends.back(), "A"});
  return plot;
}

}  // namespace

void add_path(Page& page, const PathResult& result, const PathResult* before) {
  page.table(barrier_table(result, before));
  std::string geometry = geometry_text(result, before);
  geometry[0] = 'D';
  page.paragraph(geometry +
                 " of the end points. The dashed line without points between them is the "
                 "chord that a barrier is measured from.");
  PlotSpec loss = path_plot(result, before, "Loss", "nats per token", &PathSplit::losses,
                            &PathResult::loss_barrier);
  PlotSpec error = path_plot(result, before, "Token error rate", "1 - accuracy", &PathSplit::errors,
                             &PathResult::error_barrier);
  PlotSpec perplexity{
      .title = "Perplexity", .x_label = "alpha (0: B, 1: A)", .y_label = "exp(loss)"};
  perplexity.colors = loss.colors;
  for (const Series& curve : loss.series) {
    if (!curve.in_legend) continue;
    perplexity.series.push_back(curve);
    for (double& value : perplexity.series.back().y) value = std::exp(value);
  }
  error.half_width = perplexity.half_width = true;
  page.plot(loss);
  page.plot(error);
  page.plot(perplexity);
}

std::string path_text(const PathResult& result, const PathResult* before) {
  std::vector<TerminalSeries> series;
  const auto add = [&](const PathResult& path, const std::string& what, const char* marks) {
    for (size_t i = 0; i < path.splits.size(); ++i) {
      const PathSplit& split = path.splits[i];
      series.push_back(
          {split.name + what, marks[std::min<size_t>(i, 1)], path.alphas, split.losses()});
    }
  };
  if (before) add(*before, kBefore, "+x");
  add(result, before ? kAfter : "", "*o");
  return fmt::format("{}\n{}\n\n{}", barrier_table(result, before).str(),
                     geometry_text(result, before),
                     terminal_plot(series, "alpha (0: B, 1: A)", "loss (nats per token)"));
}

}  // namespace refract
