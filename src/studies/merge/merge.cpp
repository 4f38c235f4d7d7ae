#include "studies/merge/merge.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <limits>
#include <nlohmann/json.hpp>
#include <numeric>

#include "core/choices.h"
#include "core/error.h"
#include "core/files.h"
#include "core/progress.h"
#include "core/system/new_folder.h"
#include "report/table.h"
#include "report/terminal_plot.h"
#include "studies/connectivity/connectivity_config.h"
#include "studies/merge/merge_folder.h"

namespace refract {
namespace {

namespace fs = std::filesystem;

constexpr const char* kSoup = "greedy_soup";

bool is_soup(const MergeStudy& study) { return study.settings.method == kSoup; }

// Empty where the method has none.
std::string coefficient_of(const MergeStudy& study) {
  if (study.settings.method == "slerp") return "t";
  if (study.settings.uses_base() && !is_soup(study)) return "lambda";
  return study.settings.method == "linear" && study.models.size() == 2 ? "weight" : "";
}

void check_numbers(const MergeSettings& s) {
  // So that what is no number is refused too.
  if (!(s.t >= 0 && s.t <= 1)) fail_usage("--t {} must be in [0, 1]", s.t);
  if (!(s.density > 0 && s.density <= 1)) fail_usage("--density {} must be in (0, 1]", s.density);
  if (!std::isfinite(s.lambda)) fail_usage("--lambda {} must be a finite number", s.lambda);
  for (const double weight : s.weights) {
    if (!std::isfinite(weight)) fail_usage("--weights has {}, which is no finite number", weight);
  }
}

void check_weights(const MergeStudy& study) {
  const std::vector<double>& weights = study.settings.weights;
  if (weights.empty()) return;
  if (weights.size() != study.models.size())
    fail_usage("--weights has {} numbers for {} models", weights.size(), study.models.size());
  if (study.settings.method == "slerp" || is_soup(study))
    fail_usage("--weights goes with linear and with task vectors, not with {}",
               study.settings.method);
  const double sum = std::accumulate(weights.begin(), weights.end(), 0.0);
  if (study.settings.method == "linear" && std::abs(sum) < 1e-8)
    fail_usage("--weights add up to 0, and linear divides by their sum");
}

void check(const MergeStudy& study) {
  const MergeSettings& s = study.settings;
  std::vector<std::string> methods = merge_methods();
  methods.emplace_back(kSoup);
  require_choice("--method", s.method, methods);
  check_numbers(s);
  check_weights(study);
  const size_t count = study.models.size();
  if (count < (s.uses_base() && !is_soup(study) ? 1 : 2))
    fail_usage("--method {} merges at least two models", s.method);
  if (s.method == "slerp" && count != 2)
    fail_usage("--method slerp takes two models, not {}", count);
  if (s.uses_base() && !is_soup(study) && study.base.empty()) {
    fail_usage("--method {} adds differences from a model: say which with --base MODEL", s.method);
  }
  if ((!s.uses_base() || is_soup(study)) && !study.base.empty())
    fail_usage("--base goes with task vectors, not with --method {}", s.method);
  if (study.points < 0 || study.points == 1)
    fail_usage("--points takes 0 or a number from 2 on, not {}", study.points);
  if (study.points > kMostAlphas)
    fail_usage("--points {} is too many: at most {} are possible", study.points, kMostAlphas);
  if (study.points > 0 && coefficient_of(study).empty())
    fail_usage("--points needs a path: slerp, task vectors, or linear between two models");
  if (study.best && study.points == 0)
    fail_usage("--best chooses among --points; give their number");
}

MergeSettings at_coefficient(const MergeStudy& study, double value) {
  MergeSettings s = study.settings;
  const std::string name = coefficient_of(study);
  if (name == "weight") s.weights = {1 - value, value};
  if (name == "t") s.t = value;
  if (name == "lambda") s.lambda = value;
  return s;
}

double coefficient_in(const MergeStudy& study) {
  const MergeSettings& s = study.settings;
  const std::string name = coefficient_of(study);
  if (name == "weight")
    return s.weights.empty() ? 0.5 : s.weights[1] / (s.weights[0] + s.weights[1]);
  return name == "t" ? s.t : s.lambda;
}

class Merger {
 public:
  Merger(const MergeStudy& study, const fs::path& out)
      : study_(study), folders_(study.models, study.base), out_(out) {
    all_.resize(study.models.size());
    std::iota(all_.begin(), all_.end(), size_t{0});
    if (study_.settings.weights.empty()) study_.settings.weights.assign(all_.size(), 1.0);
  }

  MergeResult run() {
    MergeResult result;
    result.coefficient = coefficient_of(study_);
    result.written = coefficient_in(study_);
    if (is_soup(study_)) {
      cook(result);
      folders_.write(out_, soup(result.chosen.size()), study_.dtype, result.chosen);
      return result;
    }
    measure(result);
    if (study_.best) {
      result.written =
          std::min_element(result.points.begin(), result.points.end(),
                           [](const MergePoint& a, const MergePoint& b) { return a.loss < b.loss; })
              ->coefficient;
    }
    // As asked for where no coefficient was chosen: more than two models have weights only.
    folders_.write(
        out_, result.coefficient.empty() ? study_.settings : at_coefficient(study_, result.written),
        study_.dtype, all_);
    return result;
  }

 private:
  static MergeSettings soup(size_t count) {
    MergeSettings mean;
    mean.weights.assign(count, 1.0);
    return mean;
  }

  double loss_of(const std::string& model) const {
    return evaluate_model(model, study_.overrides, study_.evaluation).result.loss;
  }

  double loss_of(const MergeSettings& settings, const std::vector<size_t>& chosen) const {
    const fs::path candidate = out_ / "candidate";
    fs::create_directory(candidate);
    folders_.write(candidate, settings, std::nullopt, chosen);
    const double loss = loss_of(candidate.string());
    fs::remove_all(candidate);
    return loss;
  }

  void measure(MergeResult& result) const {
    const double last = result.coefficient == "lambda" ? study_.settings.lambda : 1;
    for (int64_t i = 0; i < study_.points; ++i) {
      const double value = last * static_cast<double>(i) / static_cast<double>(study_.points - 1);
      result.points.push_back({value, loss_of(at_coefficient(study_, value), all_)});
    }
  }

  void cook(MergeResult& result) const {
    // As the candidates are: with the first model's settings and corpus.
    for (const size_t model : all_) result.losses.push_back(loss_of(soup(1), {model}));
    std::vector<size_t> order = all_;
    // What is lost comes last.
    std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) {
      const double x = result.losses[a], y = result.losses[b];
      return std::isnan(y) ? !std::isnan(x) : x < y;
    });
    double best = std::numeric_limits<double>::infinity();
    for (const size_t model : order) {
      std::vector<size_t> with = result.chosen;
      with.push_back(model);
      const double loss =
          with.size() == 1 ? result.losses[model] : loss_of(soup(with.size()), with);
      if (!(loss <= best)) continue;
      best = loss;
      result.chosen = with;
    }
    if (result.chosen.empty()) fail("no model's loss is a finite number, so there is no soup");
    result.points = {{static_cast<double>(result.chosen.size()), best}};
  }

  MergeStudy study_;
  MergeFolders folders_;
  fs::path out_;
  std::vector<size_t> all_;
};

}  // namespace

MergeResult merge_models(const MergeStudy& study) {
  check(study);
  NewFolder folder(study.out, "the merged model");
  const MergeResult result = Merger(study, folder.path()).run();
  write_file_atomically(folder.path() / "merge.json", merge_json(study, result).dump(1) + "\n");
  folder.commit();
  return result;
}

nlohmann::json merge_json(const MergeStudy& study, const MergeResult& result) {
  nlohmann::json points = nlohmann::json::array();
  for (const MergePoint& point : result.points)
    points.push_back(
        {{result.coefficient.empty() ? "models" : result.coefficient, point.coefficient},
         {"loss", point.loss}});
  nlohmann::json out = {{"folder", study.out},
                        {"method", study.settings.method},
                        {"models", study.models},
                        {"points", points}};
  if (!study.base.empty()) out["base"] = study.base;
  if (!result.coefficient.empty()) out[result.coefficient] = result.written;
  if (!result.losses.empty()) {
    out["losses"] = result.losses;
    out["chosen"] = result.chosen;
  }
  return out;
}

std::string merge_text(const MergeStudy& study, const MergeResult& result) {
  std::string text;
  if (!result.losses.empty()) {
    Table table({{"model"}, {"loss", Align::kRight}, {"in the soup"}});
    for (size_t i = 0; i < study.models.size(); ++i) {
      const bool chosen =
          std::find(result.chosen.begin(), result.chosen.end(), i) != result.chosen.end();
      table.add_row(
          {study.models[i], fmt::format("{:.4f}", result.losses[i]), chosen ? "yes" : ""});
    }
    return table.str() + fmt::format("\nthe soup's loss  {:.4f}\n", result.points[0].loss);
  }
  if (result.points.empty()) return text;
  Table table({{result.coefficient, Align::kRight}, {"loss", Align::kRight}, {""}});
  TerminalSeries series;
  for (const MergePoint& point : result.points) {
    table.add_row({format_number(point.coefficient), fmt::format("{:.4f}", point.loss),
                   point.coefficient == result.written ? "written" : ""});
    series.x.push_back(point.coefficient);
    series.y.push_back(point.loss);
  }
  return terminal_plot({series}, result.coefficient, "loss") + "\n" + table.str();
}

}  // namespace refract
