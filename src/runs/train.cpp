#include "runs/train.h"

#include <algorithm>
#include <filesystem>

#include "core/error.h"
#include "core/log.h"
#include "core/process_info.h"
#include "core/progress.h"
#include "core/version.h"
#include "report/run/start_record.h"
#include "report/run_report.h"
#include "runs/device.h"
#include "runs/recipe.h"
#include "runs/reporter.h"
#include "runs/run_cost.h"
#include "runs/run_session.h"
#include "runs/time_budget.h"
#include "train/self_guided.h"

namespace refract {
namespace {

namespace fs = std::filesystem;

// One line on how well the transformed layers stand for the weights they started from.
void report_taken_over(const std::vector<TakenOver>& taken) {
  if (taken.empty()) return;
  const auto by_error = [](const TakenOver& a, const TakenOver& b) {
    return a.relative_error < b.relative_error;
  };
  const auto worst = std::max_element(taken.begin(), taken.end(), by_error);
  double sum = 0;
  for (const TakenOver& layer : taken) sum += layer.relative_error;
  log_info(
      "{} transformed layers took over dense weights, relative error {:.3g} on average, {:.3g} "
      "at worst ({})",
      taken.size(), sum / static_cast<double>(taken.size()), worst->relative_error, worst->name);
}

// "1.01M parameters", or "1.03M parameters, 24.6k of them trained" where a part is frozen.
std::string parameter_text(const ParameterArena& arena) {
  const auto text = [](int64_t count) { return format_count(static_cast<double>(count)); };
  std::string all = text(arena.count()) + " parameters";
  if (arena.trainable_count() < arena.count())
    all += fmt::format(", {} of them trained", text(arena.trainable_count()));
  return all;
}

void prepare_folder(const fs::path& folder, bool resume) {
  if (fs::exists(folder / "config.toml") && !resume) {
    fail_usage("'{}' already holds a run; go on with it by --resume, or choose another run.dir",
               folder.string());
  }
  make_run_folder(folder);
}

// For the head of its report.
void record_start(const RunSession& session, at::Device device, int64_t from_step) {
  const RunConfig& config = session.config;
  const RunCost cost = cost_of_run(config, *session.model, session.steps);
  const ParameterArena& arena = session.model->arena();
  StartRecord start;
  start.time = seconds_since_1970();
  start.version = kVersion;
  start.command = process_command();
  start.device = device_name(device);
  start.precision = config.train.precision;
  start.from_step = from_step;
  start.steps = static_cast<int64_t>(cost.run.steps);
  start.guided_steps = SelfGuidedPlan(config, session.steps).guided_steps();
  start.parameters = arena.count();
  start.trainable_parameters = arena.trainable_count();
  start.training_flops = cost.flops.total();
  write_start(config.run.dir, start);
}

RunSession open_run(Recipe recipe, at::Device device, const std::string& where, bool resume) {
  const Dataset data = open_run_data(recipe.config, recipe.source, recipe.names_tokenizer);
  log_info("data: {}", data.description);
  settle_steps(recipe.config, data, recipe.source, device, where, resume);
  RunSession session = open_session(recipe.config, data, recipe.source, device, where);
  if (!session.plan.empty()) log_info("transforms:\n{}", session.plan);
  report_taken_over(session.taken_over);
  warn_of_long_warmup(session.config, session.steps);
  return session;
}

}  // namespace

TrainedRun train_recipe(const std::string& path, const std::vector<std::string>& overrides,
                        bool resume) {
  Recipe recipe = open_recipe(path, overrides);
  const fs::path folder = recipe.config.run.dir;
  prepare_folder(folder, resume);
  const at::Device device = open_device(recipe.config);
  log_to_file(folder / "log.txt");
  const RunSession session = open_run(std::move(recipe), device, path, resume);
  const RunConfig& config = session.config;
  RunReporter::Options options = reporter_options(session, device);
  if (resume) options.resumed_from = Checkpoints(folder).newest();
  RunReporter reporter(options);
  Trainer trainer(config, *session.model, session.data, session.steps, reporter);
  // Only now is it a run: a start that failed above may be tried again with other settings.
  write_run_settings(session);
  if (options.resumed_from) trainer.resume();
  record_start(session, device, trainer.position());
  log_info("model: {} on {}, {}", parameter_text(session.model->arena()), device_name(device),
           config.train.precision);
  log_info("run: {}", describe(cost_of_run(config, *session.model, session.steps), config));
  if (trainer.position() > 0) log_info("resuming from step {}", trainer.position());
  TrainedRun run{config.run.dir, trainer.run(), {}};
  reporter.finish();
  run.report = write_run_report(folder);
  return run;
}

}  // namespace refract
