#include "studies/curvature/curvature_output.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>
#include <utility>

#include "core/files.h"
#include "report/page/page.h"
#include "report/table.h"
#include "studies/path_output.h"

namespace refract {
namespace {

using nlohmann::json;

json eigenvalue_json(const Eigenvalue& one) {
  return {{"value", finite_or_null(one.value)}, {"residual", finite_or_null(one.residual)}};
}

json trace_json(const TraceEstimate& trace) {
  return {{"mean", finite_or_null(trace.mean)},
          {"standard_error", finite_or_null(trace.standard_error)},
          {"probes", trace.probes}};
}

json operator_json(const OperatorCurvature& one) {
  json values = json::array();
  for (const Eigenvalue& value : one.spectrum.largest) values.push_back(eigenvalue_json(value));
  json out = {{"eigenvalues", values},
              {"smallest", eigenvalue_json(one.spectrum.smallest)},
              {"products", one.spectrum.products},
              {"converged", one.spectrum.converged},
              {"asymmetry", finite_or_null(one.spectrum.asymmetry)},
              {"step_error",
               {{"largest", finite_or_null(one.error_largest)},
                {"random", finite_or_null(one.error_random)}}}};
  if (one.trace.probes > 0) out["trace"] = trace_json(one.trace);
  if (!one.density.nodes.empty())
    out["density"] = {{"nodes", one.density.nodes}, {"weights", one.density.weights}};
  return out;
}

const char* title_of(const OperatorCurvature& one) {
  return one.name == "hessian" ? "Hessian" : "Gauss-Newton";
}

// A quantity for each operator.
template <class Cell>
void add_quantity(Table& table, const CurvatureResult& result, const std::string& name,
                  const Cell& cell) {
  std::vector<std::string> row = {name};
  for (const OperatorCurvature& one : result.operators) row.push_back(cell(one));
  table.add_row(row);
}

Table spectrum_table(const CurvatureResult& result) {
  std::vector<Table::Column> columns = {{""}};
  size_t most = 0;
  for (const OperatorCurvature& one : result.operators) {
    columns.push_back({title_of(one), Align::kRight});
    most = std::max(most, one.spectrum.largest.size());
  }
  Table table(columns);
  const auto with_residual = [](const Eigenvalue& one) {
    return fmt::format("{} (+-{})", format_number(one.value), format_number(one.residual, 2));
  };
  for (size_t i = 0; i < most; ++i) {
    add_quantity(table, result, fmt::format("eigenvalue {}", i + 1), [&](const auto& one) {
      return i < one.spectrum.largest.size() ? with_residual(one.spectrum.largest[i]) : "";
    });
  }
  add_quantity(table, result, "smallest seen",
               [&](const auto& one) { return with_residual(one.spectrum.smallest); });
  if (result.operators.front().trace.probes > 0) {
    add_quantity(table, result, "trace", [](const auto& one) {
      return fmt::format("{} (+-{})", format_number(one.trace.mean),
                         format_number(one.trace.standard_error, 2));
    });
  }
  add_quantity(table, result, "products for the eigenvalues",
               [](const auto& one) { return format_integer(one.spectrum.products); });
  add_quantity(table, result, "error of a product, eigenvector",
               [](const auto& one) { return format_number(one.error_largest, 2); });
  add_quantity(table, result, "error of a product, random",
               [](const auto& one) { return format_number(one.error_random, 2); });
  add_quantity(table, result, "asymmetry",
               [](const auto& one) { return format_number(one.spectrum.asymmetry, 2); });
  return table;
}

Table path_table(const CurvatureResult& result) {
  Table table({{"alpha", Align::kRight},
               {"loss", Align::kRight},
               {"largest eigenvalue", Align::kRight},
               {"trace", Align::kRight},
               {"along the path", Align::kRight}});
  for (const CurvaturePoint& point : result.path) {
    table.add_row({format_number(point.alpha), format_fixed(point.loss, 4),
                   format_number(point.largest.value), format_number(point.trace.mean),
                   format_number(point.along)});
  }
  return table;
}

std::string gradient_sentence(const CurvatureResult& result) {
  if (result.kinds.empty()) {
    return fmt::format("Differences of the loss's gradient in {}, step {} of the weights' length.",
                       result.precision, format_number(result.step));
  }
  return fmt::format(
      "Differences of the gradient that training takes through the kinds {} (straight through what "
      "quantizes) in {}, with the noise of an evaluation, step {} of the weights' length.",
      fmt::join(result.kinds, ", "), result.precision, format_number(result.step));
}

PlotSpec eigenvalue_plot(const CurvatureResult& result) {
  PlotSpec plot{
      .title = "Largest eigenvalues", .x_label = "number", .y_label = "nats per length^2"};
  for (const OperatorCurvature& one : result.operators) {
    Series series{.name = title_of(one)};
    series.mode = SeriesMode::kLinesMarkers;
    for (const Eigenvalue& value : one.spectrum.largest) {
      series.x.push_back(static_cast<double>(series.x.size() + 1));
      series.y.push_back(value.value);
      series.error.push_back(value.residual);
    }
    plot.series.push_back(std::move(series));
  }
  plot.half_width = true;
  return plot;
}

// Every node as a normal curve, a hundredth of the spectrum wide.
Series density_series(const OperatorCurvature& one) {
  constexpr int kPoints = 400;
  Series series{.name = title_of(one)};
  const Quadrature& density = one.density;
  const auto [low, high] = std::minmax_element(density.nodes.begin(), density.nodes.end());
  const double width = std::max(*high - *low, 1e-12), sigma = width / 100;
  const double scale = 1 / (sigma * std::sqrt(2 * 3.141592653589793));
  for (int i = 0; i <= kPoints; ++i) {
    const double x = *low - 0.05 * width + 1.1 * width * i / kPoints;
    double sum = 0;
    for (size_t k = 0; k < density.nodes.size(); ++k) {
      const double z = (x - density.nodes[k]) / sigma;
      sum += density.weights[k] * scale * std::exp(-z * z / 2);
    }
    series.x.push_back(x);
    series.y.push_back(std::max(sum, 1e-12));
  }
  return series;
}

void add_density_plot(Page& page, const CurvatureResult& result) {
  PlotSpec plot{.title = "Spectral density", .x_label = "eigenvalue", .y_label = "density"};
  plot.log_y = true;
  plot.half_width = true;
  for (const OperatorCurvature& one : result.operators) {
    if (!one.density.nodes.empty()) plot.series.push_back(density_series(one));
  }
  if (!plot.series.empty()) page.plot(plot);
}

void add_path_plots(Page& page, const CurvatureResult& result) {
  page.heading("Along the path");
  page.paragraph(fmt::format(
      "Alpha 1 is {}, alpha 0 is {}; they are {} apart. Along the path: d^T A d / d^T d with the "
      "path's direction d and the matrix A, the {}.",
      result.folder, result.other, format_number(result.path_length),
      title_of(result.operators.front())));
  page.table(path_table(result));
  const auto add = [&](const char* title, const char* label, const auto& of) {
    PlotSpec plot{.title = title, .x_label = "alpha", .y_label = label};
    Series series{.name = title};
    series.mode = SeriesMode::kLinesMarkers;
    for (const CurvaturePoint& point : result.path) {
      series.x.push_back(point.alpha);
      series.y.push_back(of(point));
    }
    plot.series.push_back(std::move(series));
    plot.half_width = true;
    page.plot(plot);
  };
  add("Loss", "nats per token", [](const CurvaturePoint& p) { return p.loss; });
  add("Largest eigenvalue", "nats per length^2",
      [](const CurvaturePoint& p) { return p.largest.value; });
  add("Along the path", "nats per length^2", [](const CurvaturePoint& p) { return p.along; });
}

void add_plane_picture(Page& page, const CurvatureResult& result) {
  page.heading("A plane of random directions");
  page.paragraph(
      "Both directions are random, each row of a matrix as long as the model's own; biases and "
      "normalizations stay as they are. The model is in the middle.");
  ContourSpec contour;
  contour.title = "Loss around the model";
  contour.x_label = "first direction";
  contour.y_label = "second direction";
  contour.z_label = "nats per token";
  contour.x = contour.y = result.plane_axis;
  contour.z = result.plane_loss;
  Series model{.name = "model", .x = {0}, .y = {0}};
  model.mode = SeriesMode::kMarkers;
  contour.series = {std::move(model)};
  page.contour(contour);
}

}  // namespace

json curvature_json(const CurvatureResult& result) {
  json out = {{"model", result.folder},
              {"corpus", result.corpus},
              {"tokens", result.tokens},
              {"context", result.context},
              {"parameters", result.parameters},
              {"precision", result.precision},
              {"step", result.step},
              {"kinds", result.kinds},
              {"loss", finite_or_null(result.loss)},
              {"gradient_length", finite_or_null(result.gradient_length)},
              {"seconds", result.seconds}};
  for (const OperatorCurvature& one : result.operators) out[one.name] = operator_json(one);
  if (!result.path.empty()) {
    json points = json::array();
    for (const CurvaturePoint& point : result.path) {
      json entry = {{"alpha", point.alpha},
                    {"loss", finite_or_null(point.loss)},
                    {"largest", eigenvalue_json(point.largest)},
                    {"along", finite_or_null(point.along)}};
      if (point.trace.probes > 0) entry["trace"] = trace_json(point.trace);
      points.push_back(std::move(entry));
    }
    out["along"] = {{"other", result.other},
                    {"of", result.operators.front().name},
                    {"distance", result.path_length},
                    {"points", points}};
  }
  if (!result.plane_axis.empty()) {
    json rows = json::array();
    for (const auto& row : result.plane_loss) {
      rows.push_back(json::array());
      for (const double loss : row) rows.back().push_back(finite_or_null(loss));
    }
    out["plane"] = {{"axis", result.plane_axis}, {"loss", rows}};
  }
  return out;
}

std::string curvature_text(const CurvatureResult& result) {
  std::string text = fmt::format(
      "loss {:.4f} nats per token, gradient {} ({} tokens, {} parameters)\n{}\n\n{}", result.loss,
      format_number(result.gradient_length), format_integer(result.tokens),
      format_integer(result.parameters), gradient_sentence(result), spectrum_table(result).str());
  if (!result.path.empty()) text += "\n" + path_table(result).str();
  return text;
}

void write_curvature(const CurvatureResult& result, const std::filesystem::path& folder) {
  write_file_atomically(folder / "curvature.json", curvature_json(result).dump(1) + "\n");
  Page page("Curvature of the loss around " + result.folder,
            fmt::format("loss {:.4f} nats per token on {} tokens of {}", result.loss,
                        format_integer(result.tokens), result.corpus));
  page.paragraph(gradient_sentence(result));
  page.table(spectrum_table(result));
  page.plot(eigenvalue_plot(result));
  add_density_plot(page, result);
  if (!result.path.empty()) add_path_plots(page, result);
  if (!result.plane_axis.empty()) add_plane_picture(page, result);
  page.write(folder / "report.html");
}

}  // namespace refract
