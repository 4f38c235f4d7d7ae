#include "studies/path_output.h"

#include <fmt/format.h>

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

double number(const json& value) {
  return value.is_null() ? std::numeric_limits<double>::quiet_NaN() : value.get<double>();
}

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

PathResult path_from_json(const json& in) {
  PathResult result;
  result.alphas = in.at("alphas").get<std::vector<double>>();
  result.engine = in.value("engine", "");
  result.geometry.norm_a = number(in.at("norm_a"));
  result.geometry.norm_b = number(in.at("norm_b"));
  result.geometry.distance = number(in.at("distance"));
  // The cosine is made from it again, to the last bit.
  result.geometry.dot = in.contains("dot") ? number(in.at("dot"))
                                           : number(in.at("cosine")) * result.geometry.norm_a *
                                                 result.geometry.norm_b;
  for (const auto& [name, split] : in.at("splits").items()) {
    PathSplit read{name, {}};
    for (size_t i = 0; i < result.alphas.size(); ++i) {
      read.points.push_back({number(split.at("loss").at(i)), number(split.at("accuracy").at(i)),
                             split.at("tokens").get<int64_t>()});
    }
    result.splits.push_back(std::move(read));
  }
  return result;
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

Table barrier_table(const PathResult& result) {
  Table table({{"split"},
               {"quantity"},
               {"A", Align::kRight},
               {"B", Align::kRight},
               {"worst", Align::kRight},
               {"at", Align::kRight},
               {"instability", Align::kRight},
               {"", Align::kRight},
               {"barrier", Align::kRight},
               {"", Align::kRight}});
  for (size_t i = 0; i < result.splits.size(); ++i) {
    const PathSplit& split = result.splits[i];
    const auto add = [&](const std::string& quantity, const std::vector<double>& values,
                         const Barrier& b) {
      table.add_row(
          {split.name, quantity, format_fixed(values.back(), 4), format_fixed(values.front(), 4),
           format_fixed(b.end_point_mean + b.instability, 4), format_fixed(b.instability_alpha, 2),
           format_fixed(b.instability, 4), share(b.relative_instability()),
           format_fixed(b.barrier, 4), share(b.relative_barrier())});
    };
    add("loss", split.losses(), result.loss_barrier(i));
    add("token error", split.errors(), result.error_barrier(i));
  }
  return table;
}

}  // namespace

void add_path(Page& page, const PathResult& result) {
  page.table(barrier_table(result));
  page.paragraph(fmt::format("Distance of the end points {}, cosine {}.",
                             format_number(result.geometry.distance),
                             format_number(result.geometry.cosine())));
  PlotSpec loss{.title = "Loss", .x_label = "alpha", .y_label = "nats per token"};
  PlotSpec error{.title = "Token error rate", .x_label = "alpha", .y_label = "1 - accuracy"};
  PlotSpec perplexity{.title = "Perplexity", .x_label = "alpha", .y_label = "exp(loss)"};
  for (const PathSplit& split : result.splits) {
    Series series{.name = split.name, .x = result.alphas, .y = split.losses()};
    series.mode = SeriesMode::kLinesMarkers;
    loss.series.push_back(series);
    for (double& value : series.y) value = std::exp(value);
    perplexity.series.push_back(series);
    series.y = split.errors();
    error.series.push_back(series);
  }
  error.half_width = perplexity.half_width = true;
  page.plot(loss);
  page.plot(error);
  page.plot(perplexity);
}

std::string path_text(const PathResult& result) {
  std::vector<TerminalSeries> series;
  for (const PathSplit& split : result.splits)
    series.push_back({split.name, series.empty() ? '*' : 'o', result.alphas, split.losses()});
  return fmt::format("{}\ndistance {}, cosine {}\n\n{}", barrier_table(result).str(),
                     format_number(result.geometry.distance),
                     format_number(result.geometry.cosine()),
                     terminal_plot(series, "alpha (0: B, 1: A)", "loss (nats per token)"));
}

}  // namespace refract
