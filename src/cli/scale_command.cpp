// refract scale: how the loss of finished runs falls with compute, parameters and tokens.
#include <algorithm>
#include <cmath>
#include <fstream>
#include <map>
#include <nlohmann/json.hpp>

#include "analysis/model_flops.h"
#include "analysis/scaling.h"
#include "cli/commands.h"
#include "core/error.h"
#include "report/page/page.h"
#include "report/table.h"
#include "runs/plan.h"
#include "runs/recipe.h"
#include "runs/run_cost.h"

namespace refract {
namespace {

namespace fs = std::filesystem;

// What a run cost and what it reached.
struct ScaledRun {
  fs::path folder;
  std::string group;  // the kinds of its rules, or "dense"
  double flops = 0, parameters = 0, tokens = 0, loss = 0;
};

struct Axis {
  const char* key;
  const char* label;
  double ScaledRun::*value;
};
constexpr Axis kAxes[] = {{"training_flops", "training FLOPs", &ScaledRun::flops},
                          {"parameters", "parameters without embeddings", &ScaledRun::parameters},
                          {"tokens", "training tokens", &ScaledRun::tokens}};

struct Fit {
  std::string group;
  const Axis* axis = nullptr;
  std::vector<ScalingPoint> points;
  PowerLaw law;
};

class ScaleCommand : public Command {
 public:
  std::string name() const override { return "scale"; }
  std::string summary() const override {
    return "Fit power laws of the loss of finished runs in FLOPs, parameters and tokens";
  }
  std::string example() const override {
    return "refract scale runs/s runs/m runs/l runs/s_low_rank runs/m_low_rank runs/l_low_rank";
  }
  void declare(CommandLine& line) override {
    line.positional("runs", runs_, "folders of finished runs", true);
    line.option("--metric", metric_, "validation_loss or mean_loss: the last value of it");
    line.option("--law", law_,
                "plain (A x^-alpha), offset (E + A x^-alpha), or auto: with an "
                "offset where five or more runs allow it");
    line.option("--confidence", confidence_, "of the intervals");
    line.option("--out", out_, "folder for report.html");
    line.flag("--json", json_, "print one JSON object");
  }
  int run() override;

 private:
  void check() const;
  ScaledRun read(const fs::path& folder) const;
  bool with_offset(size_t points) const;
  void fit(const std::vector<ScaledRun>& runs);
  nlohmann::json results(const std::vector<ScaledRun>& runs) const;
  void print(const std::vector<ScaledRun>& runs) const;
  void write_report(const std::vector<ScaledRun>& runs) const;

  std::vector<std::string> runs_;
  std::string metric_ = "validation_loss", law_ = "auto", out_;
  double confidence_ = 0.95;
  bool json_ = false;
  std::vector<Fit> fits_;
  std::vector<std::string> left_out_;  // groups with too few runs, and why
};

// The last line of metrics.jsonl that holds the metric.
std::optional<std::pair<int64_t, double>> last_value(const fs::path& folder,
                                                     const std::string& metric) {
  std::optional<std::pair<int64_t, double>> found;
  std::ifstream file(folder / "metrics.jsonl");
  for (std::string line; std::getline(file, line);) {
    const nlohmann::json entry = nlohmann::json::parse(line, nullptr, /*allow_exceptions=*/false);
    if (!entry.is_object() || !entry.contains(metric) || !entry[metric].is_number()) continue;
    found = {entry.value("step", int64_t{0}), entry[metric].get<double>()};
  }
  return found;
}

std::string group_of(const TransformedModel& model) {
  std::string group;
  for (const PlanRow& row : model.plan) {
    if (row.rule < 0 || row.modules.empty() || row.kind == "none") continue;
    if (group.find(row.kind) != std::string::npos) continue;
    group += (group.empty() ? "" : "+") + row.kind;
  }
  return group.empty() ? "dense" : group;
}

ScaledRun ScaleCommand::read(const fs::path& folder) const {
  const fs::path settings = folder / "config.toml";
  if (!fs::exists(settings)) fail_usage("'{}' is no run: it has no config.toml", folder.string());
  RunConfig config = open_resolved_recipe(settings.string(), {}).config;
  TransformedModel model = plan_model(config, settings.string());
  const int64_t steps = resolve_steps(config, model.decoder->arena().count());
  const RunCost cost = cost_of_run(config, *model.decoder, steps);
  const auto last = last_value(folder, metric_);
  if (!last) fail("'{}' has no {} in its metrics.jsonl", folder.string(), metric_);
  if (last->first < static_cast<int64_t>(cost.run.steps)) {
    fail(
        "'{}' is not finished: its last {} is of step {} of {}; finish it with refract train "
        "--resume, or leave it out",
        folder.string(), metric_, last->first, static_cast<int64_t>(cost.run.steps));
  }
  ScaledRun run;
  run.folder = folder;
  run.group = group_of(model);
  if (config.self_guided.mode != "none") run.group += " self-guided";
  run.flops = cost.flops.total();
  run.parameters = static_cast<double>(
      matrix_parameters(shape_of(*model.decoder, config.data.context)).without_embeddings());
  run.tokens = cost.run.steps * cost.run.tokens_per_step;
  run.loss = last->second;
  return run;
}

void ScaleCommand::check() const {
  if (metric_ != "validation_loss" && metric_ != "mean_loss")
    fail_usage("--metric {} is neither validation_loss nor mean_loss", metric_);
  if (law_ != "auto" && law_ != "plain" && law_ != "offset")
    fail_usage("--law {} is none of auto, plain, offset", law_);
  if (confidence_ <= 0 || confidence_ >= 1)
    fail_usage("--confidence {} must lie between 0 and 1", confidence_);
}

bool ScaleCommand::with_offset(size_t points) const {
  return law_ == "offset" || (law_ == "auto" && points >= 5);
}

// A fit per group and axis; what has too few runs is left out, and an error only where all are.
void ScaleCommand::fit(const std::vector<ScaledRun>& runs) {
  std::map<std::string, std::vector<const ScaledRun*>> groups;
  for (const ScaledRun& run : runs) groups[run.group].push_back(&run);
  for (const auto& [group, members] : groups) {
    for (const Axis& axis : kAxes) {
      Fit fit{group, &axis, {}, {}};
      for (const ScaledRun* run : members) fit.points.push_back({run->*axis.value, run->loss});
      try {
        fit.law = fit_power_law(fit.points, with_offset(fit.points.size()), confidence_);
        fits_.push_back(std::move(fit));
      } catch (const Error& error) {
        left_out_.push_back(fmt::format("{} over {}: {}", group, axis.label, error.what()));
      }
    }
  }
  if (fits_.empty()) fail("{}", left_out_.front());
}

nlohmann::json to_json(const Estimate& e) {
  return {{"value", e.value}, {"low", e.low}, {"high", e.high}};
}

// Every other group against the dense one, on the same axis.
std::vector<std::pair<const Fit*, Estimate>> against_dense(const std::vector<Fit>& fits,
                                                           double confidence) {
  std::vector<std::pair<const Fit*, Estimate>> all;
  for (const Fit& dense : fits) {
    if (dense.group != "dense") continue;
    for (const Fit& other : fits) {
      if (other.axis != dense.axis || other.group == "dense") continue;
      all.emplace_back(&other, difference_of_slopes(other.law, dense.law, confidence));
    }
  }
  return all;
}

nlohmann::json ScaleCommand::results(const std::vector<ScaledRun>& runs) const {
  nlohmann::json out = {{"metric", metric_}, {"confidence", confidence_}, {"left_out", left_out_}};
  out["runs"] = nlohmann::json::array();
  for (const ScaledRun& run : runs) {
    out["runs"].push_back({{"folder", run.folder.string()},
                           {"group", run.group},
                           {"training_flops", run.flops},
                           {"parameters", run.parameters},
                           {"tokens", run.tokens},
                           {"loss", run.loss}});
  }
  out["fits"] = nlohmann::json::array();
  for (const Fit& fit : fits_) {
    out["fits"].push_back({{"group", fit.group},
                           {"x", fit.axis->key},
                           {"law", fit.law.with_offset ? "offset" : "plain"},
                           {"x0", fit.law.x0},
                           {"E", to_json(fit.law.e)},
                           {"A", to_json(fit.law.a)},
                           {"alpha", to_json(fit.law.alpha)},
                           {"offset_at_zero", fit.law.at_bound},
                           {"residual", fit.law.residual},
                           {"points", fit.law.points}});
  }
  out["slopes_against_dense"] = nlohmann::json::array();
  for (const auto& [fit, difference] : against_dense(fits_, confidence_)) {
    out["slopes_against_dense"].push_back(
        {{"group", fit->group}, {"x", fit->axis->key}, {"difference", to_json(difference)}});
  }
  return out;
}

std::string interval(const Estimate& e) {
  return fmt::format("{} [{}, {}]", format_number(e.value, 3), format_number(e.low, 3),
                     format_number(e.high, 3));
}

Table fit_table(const std::vector<Fit>& fits) {
  Table table({{"group"},
               {"x"},
               {"runs", Align::kRight},
               {"alpha"},
               {"E"},
               {"A at x0"},
               {"x0", Align::kRight},
               {"residual", Align::kRight}});
  for (const Fit& fit : fits) {
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

void ScaleCommand::print(const std::vector<ScaledRun>& runs) const {
  fmt::print("{}\n{}", run_table(runs, metric_).str(), fit_table(fits_).str());
  for (const auto& [fit, difference] : against_dense(fits_, confidence_)) {
    fmt::print("\nalpha of {} less that of dense, over {}: {}", fit->group, fit->axis->label,
               interval(difference));
  }
  for (const std::string& why : left_out_) fmt::print("\nleft out: {}", why);
  fmt::print("\n");
}

// The measured points of a fit, and its curve between them.
std::vector<Series> series_of(const Fit& fit, int color) {
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
    const double x = least * std::pow(most / least, static_cast<double>(i) / kSteps);
    curve.x.push_back(x);
    curve.y.push_back(fit.law(x));
  }
  return {points, curve};
}

void ScaleCommand::write_report(const std::vector<ScaledRun>& runs) const {
  fs::create_directories(out_);
  Page page("Scaling", fmt::format("{} of {} runs", metric_, runs.size()));
  for (const Axis& axis : kAxes) {
    PlotSpec plot;
    plot.title = fmt::format("Loss against {}", axis.label);
    plot.x_label = axis.label;
    plot.y_label = metric_ + " (nats)";
    plot.log_x = plot.log_y = true;
    int color = 0;
    for (const Fit& fit : fits_) {
      if (fit.axis != &axis) continue;
      for (Series& series : series_of(fit, color)) plot.series.push_back(std::move(series));
      ++color;
    }
    plot.colors = color;
    if (color > 0) page.plot(plot);
  }
  page.heading("Fits");
  page.paragraph(
      fmt::format("L = E + A (x / x0)^-alpha, least squares on log L, with {} intervals.",
                  format_percent(confidence_, 0)));
  page.table(fit_table(fits_));
  for (const std::string& why : left_out_) page.paragraph("Left out: " + why);
  page.heading("Runs");
  page.table(run_table(runs, metric_));
  const fs::path path = fs::path(out_) / "report.html";
  page.write(path);
  fmt::print(stderr, "written to {}\n", path.string());
}

int ScaleCommand::run() {
  check();
  std::vector<ScaledRun> runs;
  for (const std::string& folder : runs_) runs.push_back(read(folder));
  std::sort(runs.begin(), runs.end(), [](const ScaledRun& a, const ScaledRun& b) {
    return std::tie(a.group, a.flops) < std::tie(b.group, b.flops);
  });
  fit(runs);
  if (!out_.empty()) write_report(runs);
  if (json_) {
    fmt::print("{}\n", results(runs).dump());
  } else {
    print(runs);
  }
  return 0;
}

}  // namespace

std::unique_ptr<Command> make_scale_command() { return std::make_unique<ScaleCommand>(); }

}  // namespace refract
