#include "studies/scale.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <optional>
#include <set>
#include <tuple>
#include <utility>

#include "analysis/model_flops.h"
#include "core/choices.h"
#include "core/error.h"
#include "core/log.h"
#include "report/report_file.h"
#include "report/run_record.h"
#include "report/sweep/sweep_record.h"
#include "runs/open_recipe.h"
#include "runs/plan.h"
#include "runs/run_cost.h"

namespace refract {
namespace {

namespace fs = std::filesystem;

constexpr size_t kRunsForOffset = 5;  // by law = "auto"

// The last step at which the metric was a number, and that number.
std::optional<std::pair<int64_t, double>> last_value(const fs::path& folder,
                                                     const std::string& metric) {
  const std::map<std::string, Curve> metrics = read_metrics(folder);
  const auto found = metrics.find(metric);
  if (found == metrics.end()) return std::nullopt;
  const Curve& curve = found->second;
  for (size_t i = curve.values.size(); i-- > 0;) {
    if (!std::isnan(curve.values[i]))
      return std::pair(static_cast<int64_t>(curve.steps[i]), curve.values[i]);
  }
  return std::nullopt;
}

// "low_rank", "block_dense+lora", "dense self-guided".
std::string group_of(const TransformedModel& model, const RunConfig& config) {
  std::string group;
  for (const PlanRow& row : model.plan) {
    if (row.rule < 0 || row.modules.empty() || row.kind == "none") continue;
    if (group.find(row.kind) != std::string::npos) continue;
    group += (group.empty() ? "" : "+") + row.kind;
  }
  if (group.empty()) group = "dense";
  return config.self_guided.mode == "none" ? group : group + " self-guided";
}

void check(const ScaleStudy& study) {
  require_choice("--metric", study.metric, {"validation_loss", "mean_loss"});
  require_choice("--law", study.law, {"auto", "plain", "offset"});
  if (study.confidence <= 0 || study.confidence >= 1)
    fail_usage("--confidence {} must lie between 0 and 1", study.confidence);
}

bool with_offset(const std::string& law, size_t points) {
  return law == "offset" || (law == "auto" && points >= kRunsForOffset);
}

// Every other group against the dense one, on the same axis.
std::vector<SlopeDifference> against_dense(const std::vector<ScalingFit>& fits, double confidence) {
  std::vector<SlopeDifference> all;
  for (const ScalingFit& dense : fits) {
    if (dense.group != "dense") continue;
    for (const ScalingFit& other : fits) {
      if (other.axis != dense.axis || other.group == "dense") continue;
      all.push_back(
          {other.group, other.axis, difference_of_slopes(other.law, dense.law, confidence)});
    }
  }
  return all;
}

// A path that is no folder is left to read_scaled_run(), which says what is missing.
std::vector<fs::path> folders_of(const fs::path& path) {
  if (!fs::is_directory(path) || is_run(path)) return {path};
  const std::optional<SweepRecord> sweep = read_sweep(path);
  if (!sweep) return runs_in(path);
  std::vector<fs::path> finished;
  for (const SweepRun& run : sweep->runs) {
    if (run.state == SweepState::kFinished) {
      finished.push_back(path / run.name);
    } else {
      log_warning("{} is left out: it is {}", (path / run.name).string(), state_name(run.state));
    }
  }
  if (finished.empty()) fail("no run of the sweep '{}' is finished", path.string());
  return finished;
}

}  // namespace

ScaledRun read_scaled_run(const fs::path& folder, const std::string& metric) {
  const fs::path settings = folder / "config.toml";
  if (!fs::exists(settings))
    fail_usage("'{}' is not a run: it has no config.toml", folder.string());
  RunConfig config = open_resolved_recipe(settings.string(), {}).config;
  const TransformedModel model = plan_model(config, settings.string());
  const int64_t steps = resolve_steps(config, model.decoder->arena().count());
  const RunCost cost = cost_of_run(config, *model.decoder, steps);
  const auto last = last_value(folder, metric);
  if (!last) fail("'{}' has no {} in its metrics.jsonl", folder.string(), metric);
  if (last->first < static_cast<int64_t>(cost.run.steps)) {
    fail(
        "'{}' is not finished: its last {} is of step {} of {}; finish it with refract train "
        "--resume, or leave it out",
        folder.string(), metric, last->first, static_cast<int64_t>(cost.run.steps));
  }
  ScaledRun run;
  run.folder = folder;
  run.group = group_of(model, config);
  run.flops = cost.flops.total();
  run.parameters = static_cast<double>(
      matrix_parameters(shape_of(*model.decoder, config.data.context)).without_embeddings());
  run.tokens = cost.run.steps * cost.run.tokens_per_step;
  run.loss = last->second;
  return run;
}

ScaleResult fit_scaled_runs(std::vector<ScaledRun> runs, const std::string& law,
                            double confidence) {
  ScaleResult result;
  result.runs = std::move(runs);
  std::sort(result.runs.begin(), result.runs.end(), [](const ScaledRun& a, const ScaledRun& b) {
    return std::tie(a.group, a.flops) < std::tie(b.group, b.flops);
  });
  std::map<std::string, std::vector<const ScaledRun*>> groups;
  for (const ScaledRun& run : result.runs) groups[run.group].push_back(&run);
  for (const auto& [group, members] : groups) {
    for (const ScalingAxis& axis : kScalingAxes) {
      ScalingFit fit{group, &axis, {}, {}};
      for (const ScaledRun* run : members) fit.points.push_back({run->*axis.value, run->loss});
      try {
        fit.law = fit_power_law(fit.points, with_offset(law, fit.points.size()), confidence);
        result.fits.push_back(std::move(fit));
      } catch (const Error& error) {
        result.left_out.push_back(fmt::format("{} over {}: {}", group, axis.label, error.what()));
      }
    }
  }
  if (result.fits.empty()) fail("{}", result.left_out.front());
  result.against_dense = against_dense(result.fits, confidence);
  return result;
}

std::vector<fs::path> scaled_folders(const std::vector<std::string>& paths) {
  std::vector<fs::path> folders;
  std::set<fs::path> seen;
  for (const std::string& path : paths) {
    for (const fs::path& folder : folders_of(path)) {
      if (seen.insert(fs::weakly_canonical(folder)).second) folders.push_back(folder);
    }
  }
  return folders;
}

ScaleResult scale_runs(const ScaleStudy& study) {
  check(study);
  std::vector<ScaledRun> runs;
  for (const fs::path& folder : scaled_folders(study.runs))
    runs.push_back(read_scaled_run(folder, study.metric));
  return fit_scaled_runs(std::move(runs), study.law, study.confidence);
}

}  // namespace refract
