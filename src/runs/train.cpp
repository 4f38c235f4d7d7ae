#include "runs/train.h"

#include <ATen/Parallel.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <exception>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <optional>
#include <utility>

#include "analysis/energy/energy_constants.h"
#include "analysis/energy/model_energy.h"
#include "core/error.h"
#include "core/log.h"
#include "core/paths.h"
#include "core/progress.h"
#include "core/system/folder_lock.h"
#include "core/system/process_info.h"
#include "core/version.h"
#include "distributed/program.h"
#include "distributed/world.h"
#include "report/energy/energy_record.h"
#include "report/run/start_record.h"
#include "report/run_report.h"
#include "runs/device.h"
#include "runs/open_recipe.h"
#include "runs/progress/reporter.h"
#include "runs/progress/time_budget.h"
#include "runs/resume/run_corpus.h"
#include "runs/resume/run_teacher.h"
#include "runs/resume/same_run.h"
#include "runs/run_cost.h"
#include "runs/run_session.h"
#include "train/run_paths.h"
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

// The settings to train with: those of a recipe, or of the run that lies in a folder.
struct Request {
  std::string recipe;
  std::vector<std::string> overrides;
};

Request run_in(fs::path folder, const std::vector<std::string>& overrides, bool resume) {
  if (!folder.has_filename()) folder = folder.parent_path();  // "runs/first/"
  const std::string word = shell_word(folder.string());
  if (folder.parent_path().filename() == "checkpoints") {
    fail_usage("'{}' is a checkpoint; go on with its run: refract train {} --resume",
               folder.string(), shell_word(folder.parent_path().parent_path().string()));
  }
  if (!resume) {
    fail_usage(
        "'{}' is the folder of a run, and a recipe is a TOML file; to go on with that run: refract "
        "train {} --resume",
        folder.string(), word);
  }
  Request request{(folder / "config.toml").string(), {"run.dir=" + folder.string()}};
  request.overrides.insert(request.overrides.end(), overrides.begin(), overrides.end());
  return request;
}

Request request_of(const std::string& path, const std::vector<std::string>& overrides,
                   bool resume) {
  if (!fs::is_directory(path)) return {path, overrides};
  if (fs::exists(fs::path(path) / "config.toml")) return run_in(path, overrides, resume);
  if (fs::exists(fs::path(path) / "config.json")) {
    fail_usage("'{}' is a model's folder, not a recipe; to start from it: init.from={}", path,
               path);
  }
  return {path, overrides};  // which says that it is a folder
}

// Before the corpus is opened, which may have to be made.
void check_length_is_set(const RunConfig& config, const std::string& where) {
  const auto& train = config.train;
  if (train.steps == 0 && train.tokens.empty() && train.minutes <= 0)
    fail_usage("{}: set train.steps, train.tokens or train.minutes", where);
}

constexpr const char* kInUse =
    "is being trained by another process; wait for it, or choose another run.dir";

void refuse_old_run(const fs::path& folder) {
  // Checkpoints of another run would be pruned as if they were the new one's.
  if (!fs::exists(folder / "config.toml") && Checkpoints(folder).newest()) {
    fail_usage(
        "'{}' holds the checkpoints of a run whose config.toml is missing; move them away, or "
        "choose another run.dir",
        folder.string());
  }
  if (!fs::exists(folder / "config.toml")) return;
  fail_usage(
      "'{}' already holds a run; go on with it: refract train {} --resume, or choose another "
      "run.dir",
      folder.string(), shell_word(folder.string()));
}

// Before the corpus is read, which may take long: whether the folder can be made later on.
void check_writable(const fs::path& folder) {
  fs::path there = fs::absolute(folder).lexically_normal();
  std::error_code ignored;
  while (!fs::exists(there, ignored) && there.has_relative_path()) there = there.parent_path();
  if (!fs::is_directory(there, ignored))
    fail("can't make the run folder '{}': '{}' is not a folder", folder.string(), there.string());
  if (::access(there.c_str(), W_OK | X_OK) != 0) {
    fail("can't make the run folder '{}': '{}' can't be written: {}", folder.string(),
         there.string(), std::strerror(errno));
  }
}

// Hands on what happens from the moment there is somebody to tell. A trainer wants an observer, but
// a reporter writes, and nothing is written before the trainer has accepted its checkpoint.
class LateObserver : public Observer {
 public:
  void tell(Observer& observer) { to_ = &observer; }
  void on_step(int64_t step) override { to_->on_step(step); }
  void on_log(const LogPoint& point) override { to_->on_log(point); }
  void on_evaluation(int64_t step, const Evaluation& evaluation) override {
    to_->on_evaluation(step, evaluation);
  }
  void on_sample(int64_t step, const std::string& text) override { to_->on_sample(step, text); }
  void on_checkpoint(int64_t step, const fs::path& path) override {
    to_->on_checkpoint(step, path);
  }
  void on_bad_step(const StepRecord& record) override { to_->on_bad_step(record); }

 private:
  Observer* to_ = nullptr;
};

// Goes on from the checkpoint, whose run may have come further than it is now to go.
void resume_at(Trainer& trainer, int64_t step, int64_t steps, const fs::path& folder) {
  trainer.resume_at(step);
  if (step <= steps) return;
  fail_usage("'{}' has {} steps already, and is to end after {}: set train.steps to {} or more",
             folder.string(), step, steps, step);
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

// A sample may come late in a run: whether the tokenizer has what it starts with is asked before.
void check_prompt(const RunConfig& config, const Dataset& data) {
  if (!data.tokenizer || config.eval.samples == 0) return;
  try {
    data.tokenizer->encode(config.eval.prompt);
  } catch (const Error& error) {
    throw Error(fmt::format("eval.prompt: {}", error.what()), ExitCode::kUsage);
  }
}

RunSession open_run(Recipe recipe, at::Device device, const std::string& where, bool resume,
                    World& world) {
  Dataset data;
  world.one_of_each_machine_first(
      [&] { data = open_run_data(recipe.config, recipe.source, recipe.names_tokenizer); });
  log_info("data: {}", data.description);
  check_prompt(recipe.config, data);
  // Measured by process 0, so that all take the same.
  int64_t steps = recipe.config.train.steps;
  world.leader_alone([&] {
    settle_steps(recipe.config, data, recipe.source, device, where, resume);
    steps = recipe.config.train.steps;
  });
  recipe.config.train.steps = world.number_of_leader("train.steps", steps);
  RunSession session =
      open_session(recipe.config, data, recipe.source, device, where, recipe.names_tokenizer);
  if (!session.plan.empty()) log_info("transforms:\n{}", session.plan);
  report_taken_over(session.taken_over);
  warn_of_long_warmup(session.config, session.steps);
  return session;
}

std::string log_name(const World& world) {
  return world.leader() ? "log.txt" : fmt::format("log-process-{}.txt", world.rank());
}

// In several processes: the device of this one, and the way to the others.
at::Device open_world(const RunConfig& config, World& world) {
  if (config.train.device != "cpu") take_local_gpu(world.ranks());
  const at::Device device = open_device(config);
  // The same bits in any number of processes need the same threads in each.
  if (device.is_cpu() && config.train.reduction_groups > 0 && config.train.threads == 0)
    at::set_num_threads(1);
  world.connect(device, config.train.timeout);
  return device;
}

// Where the run goes on, in all processes alike: they must see the same folder.
std::optional<int64_t> newest_checkpoint(const fs::path& folder, bool resume, World& world) {
  if (!resume) return std::nullopt;
  const std::optional<int64_t> newest = Checkpoints(folder).newest();
  world.require_same("the newest checkpoint in run.dir",
                     newest ? "step " + std::to_string(*newest) : "none");
  if (!newest)
    log_info("'{}' holds no checkpoint to go on from: the run starts anew", folder.string());
  return newest;
}

// Where a resumed run was started, see origin_of(); its recipe's paths then hold from everywhere.
fs::path keep_origin(RunConfig& config) {
  const fs::path origin = origin_of(config.run.dir);
  std::error_code ignored;
  if (!origin.empty() && !fs::equivalent(origin, fs::current_path(), ignored))
    make_paths_absolute(config);
  return origin;
}

// Makes the folder of a new run, and takes it before anybody else does.
void make_and_lock(const fs::path& folder, bool resume, std::optional<FolderLock>& lock) {
  if (lock->found()) return;
  make_run_folder(folder);
  lock.emplace(folder, kInUse);
  if (!resume) refuse_old_run(folder);
}

void write_start(const RunSession& session, const fs::path& origin, bool own_tokenizer) {
  write_run_settings(session);
  if (session.teacher) write_teacher_record(session.config.run.dir, *session.teacher);
  const int64_t context = session.config.data.context;
  write_energy(session.config.run.dir,
               energy_per_token(*session.model, session.rules, context, energy_constants()),
               context);
  nlohmann::json record = corpus_record(session.config.data, session.data, own_tokenizer);
  if (!origin.empty()) record["relative_to"] = origin.string();
  write_corpus_record(session.config.run.dir, record);
}

void report_start(const RunSession& session, at::Device device, int64_t position,
                  int64_t processes) {
  log_info("model: {} on {}, {}", parameter_text(session.model->arena()), device_name(device),
           session.config.train.precision);
  if (session.teacher) {
    log_info("teacher: '{}', {} parameters of its own beside the model's",
             session.teacher->folder().string(),
             format_count(static_cast<double>(session.teacher->own_parameters())));
  }
  log_info("run: {}",
           describe(cost_of_run(session.config, *session.model, session.steps), session.config));
  if (processes > 1) log_info("processes: {}", processes);
  if (position > 0) log_info("resuming from step {}", position);
}

TrainedRun train_with(World& world, const std::string& path,
                      const std::vector<std::string>& overrides, bool resume) {
  const Request request = request_of(path, overrides, resume);
  Recipe recipe = open_recipe(request.recipe, request.overrides);
  world.require_same("the program", program_fingerprint());
  world.require_same("the recipe", to_toml(recipe.config));
  check_length_is_set(recipe.config, path);
  const fs::path folder = recipe.config.run.dir;
  const bool own_tokenizer = !recipe.source.empty() && !recipe.names_tokenizer;
  std::optional<FolderLock> lock;  // of the process that writes
  world.leader_alone([&] {
    check_writable(folder);
    lock.emplace(folder, kInUse);
    if (!resume) refuse_old_run(folder);
  });
  const std::optional<int64_t> newest = newest_checkpoint(folder, resume, world);
  const fs::path origin = newest ? keep_origin(recipe.config) : fs::path();
  const at::Device device = open_world(recipe.config, world);
  if (newest) {  // before the corpus meets the model, which may not even hold its ids
    world.one_of_each_machine_first([&] {
      const Dataset data = open_run_corpus(recipe.config, recipe.source, recipe.names_tokenizer);
      check_corpus(folder, corpus_record(recipe.config.data, data, own_tokenizer));
    });
  }
  const RunSession session = open_run(std::move(recipe), device, path, resume, world);
  if (newest) check_resumed_settings(folder, session.config);
  if (newest && session.teacher) check_teacher(folder, *session.teacher);
  RunReporter::Options options = reporter_options(session, device);
  options.peak_flops *= static_cast<double>(world.size());
  options.resumed_from = newest;
  LateObserver observer;
  Trainer trainer(session.config, *session.model, session.data, session.steps, observer, &world);
  trainer.carry(session.carried);
  trainer.set_teacher(session.teacher.get());
  if (newest) resume_at(trainer, *newest, options.steps, folder);
  // From here on something is written.
  world.leader_alone([&] { make_and_lock(folder, resume, lock); });
  log_to_file(folder / log_name(world));
  Observer silent;
  std::optional<RunReporter> reporter;
  if (world.leader()) {
    reporter.emplace(options);
    write_start(session, origin, own_tokenizer);
    record_start(session, device, trainer.position());
  }
  observer.tell(reporter ? static_cast<Observer&>(*reporter) : silent);
  report_start(session, device, trainer.position(), world.size());
  TrainedRun run{session.config.run.dir, trainer.run(), {}, world.leader()};
  world.finish();
  if (!reporter) return run;
  reporter->finish();
  run.report = write_run_report(folder);
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
