#include "studies/scale_output.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>
#include <utility>
#include <vector>

#include "report/page/page.h"
#include "report/table.h"
#include "studies/study_folder.h"

namespace refract {
namespace {

using nlohmann::json;

json to_json(const Estimate& e) { return {{"value", e.value}, {"low", e.low}, {"high", e.high}}; }

std::string interval(const Estimate& e) {
  return fmt::format("{} [{}, {}]", format_number(e.value, 3), format_number(e.low, 3),
                     format_number(e.high, 3));
}

Table fit_table(const std::vector<ScalingFit>& fits) {
  Table table({{"group"},
               {"x"},
               {"runs", Align::kRight},
               {"alpha"},
               {"E"},
               {"A at x0"},
               {"x0", Align::kRight},
               {"residual", Align::kRight}});
  for (const ScalingFit& fit : fits) {
    table.add_row(
        {fit.group, fit.axis->label, format_integer(fit.law.points), interval(fit.law.alpha),
         fit.law.with_offset ? interval(fit.law.e) : std::string("0 (not fitted)"),
         interval(fit.law.a), format_number(fit.law.x0, 3), format_percent(fit.law.residual, 2)});
  }
  return table;
}

Table run_table(const std::vector<ScaledRun>& runs, const std::string& metric) {
  Table table({{"run"},
               {"group"},
               {"training FLOPs", Align::kRight},
               {"parameters", Align::kRight},
               {"tokens", Align::kRight},
               {metric, Align::kRight}});
  for (const ScaledRun& run : runs) {
    table.add_row({run.folder.string(), run.group, format_number(run.flops, 3),
                   format_integer(static_cast<int64_t>(run.parameters)),
                   format_integer(static_cast<int64_t>(run.tokens)), format_fixed(run.loss, 4)});
  }
  return table;
}

// How far beyond the measured x a curve is drawn, as a part of their span on the logarithmic axis.
constexpr double kBeyond = 0.35;

// The measured points of a fit, and its curve with its band, which both go on beyond them.
std::vector<Series> series_of(const ScalingFit& fit, int color) {
  constexpr int kSteps = 60;
  Series points, curve;
  points.name = fit.group;
  points.mode = SeriesMode::kMarkers;
  points.color = curve.color = color;
  double least = fit.points[0].x, most = least;
  for (const ScalingPoint& p : fit.points) {
    points.x.push_back(p.x);
    points.y.push_back(p.loss);
    least = std::min(least, p.x);
    most = std::max(most, p.x);
  }
  curve.name = fmt::format("{}, alpha {}", fit.group, format_number(fit.law.alpha.value, 3));
  curve.dashed = true;
  for (int i = 0; i <= kSteps; ++i) {
    const double part = -kBeyond + (1 + 2 * kBeyond) * static_cast<double>(i) / kSteps;
    const double x = least * std::pow(most / least, part);
    const Estimate loss = fit.law.at(x);
    curve.x.push_back(x);
    curve.y.push_back(loss.value);
    curve.low.push_back(loss.low);
    curve.high.push_back(loss.high);
  }
  return {points, curve};
}

PlotSpec plot_of(const ScalingAxis& axis, const std::vector<ScalingFit>& fits,
                 const std::string& metric) {
  PlotSpec plot;
  plot.title = fmt::format("Loss against {}", axis.label);
  plot.x_label = axis.label;
  plot.y_label = metric + " (nats)";
  plot.log_x = plot.log_y = true;
  int color = 0;
  for (const ScalingFit& fit : fits) {
    if (fit.axis != &axis) continue;
    for (Series& series : series_of(fit, color)) plot.series.push_back(std::move(series));
    ++color;
  }
  plot.colors = color;
  return plot;
}

// Of all measured points: what lies outside is extrapolated.
std::vector<Shade> measured_span(const PlotSpec& plot) {
  double least = std::numeric_limits<double>::infinity(), most = 0;
  for (const Series& series : plot.series) {
    if (series.mode != SeriesMode::kMarkers) continue;
    for (const double x : series.x) {
      least = std::min(least, x);
      most = std::max(most, x);
    }
  }
  return {{least, most, "measured"}};
}

json fit_json(const ScalingFit& fit) {
  return {{"group", fit.group},
          {"x", fit.axis->key},
          {"law", fit.law.with_offset ? "offset" : "plain"},
          {"x0", fit.law.x0},
          {"E", to_json(fit.law.e)},
          {"A", to_json(fit.law.a)},
          {"alpha", to_json(fit.law.alpha)},
          {"offset_at_zero", fit.law.at_bound},
          {"residual", fit.law.residual},
          {"points", fit.law.points}};
}

}  // namespace

json scale_json(const ScaleStudy& study, const ScaleResult& result) {
  json out = {{"metric", study.metric},      {"confidence", study.confidence},
              {"left_out", result.left_out}, {"runs", json::array()},
              {"fits", json::array()},       {"slopes_against_dense", json::array()}};
  for (const ScaledRun& run : result.runs) {
    out["runs"].push_back({{"folder", run.folder.string()},
                           {"group", run.group},
                           {"training_flops", run.flops},
                           {"parameters", run.parameters},
                           {"tokens", run.tokens},
                           {"loss", run.loss}});
  }
  for (const ScalingFit& fit : result.fits) out["fits"].push_back(fit_json(fit));
  for (const SlopeDifference& slope : result.against_dense) {
    out["slopes_against_dense"].push_back({{"group", slope.group},
                                           {"x", slope.axis->key},
                                           {"difference", to_json(slope.difference)}});
  }
  return out;
}

std::string scale_text(const ScaleStudy& study, const ScaleResult& result) {
  std::string text =
      run_table(result.runs, study.metric).str() + "\n" + fit_table(result.fits).str();
  for (const SlopeDifference& slope : result.against_dense) {
    text += fmt::format("\nalpha of {} less that of dense, over {}: {}", slope.group,
                        slope.axis->label, interval(slope.difference));
  }
  for (const std::string& why : result.left_out) text += "\nleft out: " + why;
  return text + "\n";
}

std::filesystem::path write_scale_page(const ScaleStudy& study, const ScaleResult& result,
                                       const std::string& out) {
  const StudyFolder folder(out);
  Page page("Scaling", fmt::format("{} of {} runs", study.metric, result.runs.size()));
  for (const ScalingAxis& axis : kScalingAxes) {
    PlotSpec plot = plot_of(axis, result.fits, study.metric);
    if (plot.colors == 0) continue;
    plot.shades = measured_span(plot);
    page.plot(plot);
  }
  page.heading("Fits");
  page.paragraph(
      fmt::format("L = E + A (x / x0)^-alpha, least squares on log L, with {} intervals. The "
                  "band is that of the law; the shaded part of an axis was measured.",
                  format_percent(study.confidence, 0)));
  page.table(fit_table(result.fits));
  for (const std::string& why : result.left_out) page.paragraph("Left out: " + why);
  page.heading("Runs");
  page.table(run_table(result.runs, study.metric));
  std::filesystem::path path = folder.path() / "report.html";
  page.write(path);
  return path;
}

}  // namespace refract
