#include "runs/train.h"

#include <ATen/Parallel.h>

#include <algorithm>
#include <exception>
#include <filesystem>
#include <memory>
#include <optional>

#include "core/error.h"
#include "core/log.h"
#include "core/progress.h"
#include "distributed/program.h"
#include "distributed/world.h"
#include "report/run_report.h"
#include "runs/device.h"
#include "runs/recipe.h"
#include "runs/reporter.h"
#include "runs/run_cost.h"
#include "runs/run_session.h"

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

RunSession open_run(Recipe recipe, at::Device device, const std::string& where, World& world) {
  Dataset data;
  world.one_of_each_machine_first(
      [&] { data = open_run_data(recipe.config, recipe.source, recipe.names_tokenizer); });
  log_info("data: {}", data.description);
  RunSession session = open_session(recipe.config, data, recipe.source, device, where);
  if (!session.plan.empty()) log_info("transforms:\n{}", session.plan);
  report_taken_over(session.taken_over);
  return session;
}

std::string log_name(const World& world) {
  return world.leader() ? "log.txt" : fmt::format("log-process-{}.txt", world.rank());
}

// In several processes: the device of this one, and the way to the others.
at::Device open_world(const RunConfig& config, World& world) {
  world.require_same("the program", program_fingerprint());
  world.require_same("the recipe", to_toml(config));
  if (config.train.device != "cpu") take_local_gpu(world.ranks());
  const at::Device device = open_device(config);
  // The same bits in any number of processes need the same threads in each.
  if (device.is_cpu() && config.train.reduction_groups > 0 && config.train.threads == 0)
    at::set_num_threads(1);
  world.connect(device, config.train.timeout);
  return device;
}

// Where the run goes on, in all processes alike: they must see the same folder.
std::optional<int64_t> resume_step(const fs::path& folder, bool resume, World& world) {
  if (!resume) return std::nullopt;
  const std::optional<int64_t> newest = Checkpoints(folder).newest();
  world.require_same("the newest checkpoint in run.dir",
                     newest ? "step " + std::to_string(*newest) : "none");
  return newest;
}

TrainedRun train_with(World& world, const std::string& path,
                      const std::vector<std::string>& overrides, bool resume) {
  Recipe recipe = open_recipe(path, overrides);
  const fs::path folder = recipe.config.run.dir;
  const at::Device device = open_world(recipe.config, world);
  world.leader_alone([&] { prepare_folder(folder, resume); });
  log_to_file(folder / log_name(world));
  const RunSession session = open_run(std::move(recipe), device, path, world);
  const RunConfig& config = session.config;
  RunReporter::Options options = reporter_options(session, device);
  options.peak_flops *= static_cast<double>(world.size());
  options.resumed_from = resume_step(folder, resume, world);
  std::unique_ptr<RunReporter> reporter;
  if (world.leader()) reporter = std::make_unique<RunReporter>(options);
  Observer silent;
  Observer& observer = reporter ? *reporter : silent;
  Trainer trainer(config, *session.model, session.data, session.steps, observer, &world);
  // Only now is it a run: a start that failed above may be tried again with other settings.
  world.leader_alone([&] { write_run_settings(session); });
  if (options.resumed_from) trainer.resume();
  log_info("model: {} on {}, {}", parameter_text(session.model->arena()), device_name(device),
           config.train.precision);
  if (world.size() > 1) log_info("processes: {}", world.size());
  log_info("run: {}", describe(cost_of_run(config, *session.model, session.steps), config));
  if (trainer.position() > 0) log_info("resuming from step {}", trainer.position());
  TrainedRun run{config.run.dir, trainer.run(), world.leader()};
  world.finish();
  if (!reporter) return run;
  reporter->finish();
  write_run_report(folder);
  return run;
}

}  // namespace

TrainedRun train_recipe(const std::string& path, const std::vector<std::string>& overrides,
                        bool resume) {
  World world(find_ranks());
  try {
    return train_with(world, path, overrides, resume);
  } catch (const std::exception& error) {
    world.fail_together(error);
  }
}

}  // namespace refract
