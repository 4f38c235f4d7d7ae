#include "studies/connectivity/instability_runs.h"

#include <ATen/Parallel.h>

#include <algorithm>
#include <atomic>
#include <exception>
#include <mutex>
#include <nlohmann/json.hpp>
#include <thread>

#include "core/config.h"
#include "core/error.h"
#include "core/log.h"
#include "core/progress.h"
#include "core/toml.h"
#include "formats/safetensors.h"
#include "ops/common/cuda_runtime.h"
#include "runs/plan.h"
#include "runs/progress/time_budget.h"
#include "train/self_guided.h"
#include "train/signals.h"
#include "train/trainer.h"

namespace refract {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

constexpr int64_t kSideBySideOnCuda = 4;

// Seeds of copies do not meet those of trunks, nor of another seed's copies (below 1000 copies).
int64_t copy_seed(int64_t seed, int64_t copy) { return 1000 * (seed + 1) + copy; }

bool differs_in(const ConnectivityConfig& config, const std::string& what) {
  if (config.differ == "auto") return config.pairs != "transforms";
  return config.differ == "both" || config.differ == what;
}

// The newest of a trunk's checkpoints before `stop`.
std::optional<int64_t> newest_before(const Checkpoints& trunk, int64_t stop) {
  std::optional<int64_t> newest;
  for (int64_t step : trunk.steps()) {
    if (step < stop) newest = step;
  }
  return newest;
}

bool has(const Checkpoints& checkpoints, int64_t step) {
  const std::vector<int64_t> steps = checkpoints.steps();
  return std::binary_search(steps.begin(), steps.end(), step);
}

// Where training a trunk has to begin, for the first stop that it lacks.
std::optional<int64_t> trunk_start(const Checkpoints& trunk, const std::vector<int64_t>& stops) {
  for (int64_t stop : stops) {
    if (!has(trunk, stop)) return newest_before(trunk, stop);
  }
  return std::nullopt;
}

// What a checkpoint was made with and holds has to be what its run is planned to be.
void check_checkpoint(const fs::path& checkpoint, const RunConfig& config) {
  const std::string& run = config.run.dir;
  for (const char* name : {"config.toml", "config.json", "model.safetensors"}) {
    if (fs::exists(checkpoint / name)) continue;
    if (fs::exists(checkpoint / fmt::format("{}.index.json", name))) continue;
    fail("'{}' has no {}; remove '{}' to train that run again", checkpoint.string(), name, run);
  }
  if (const fs::path weights = checkpoint / "model.safetensors"; fs::exists(weights)) {
    try {
      const SafetensorsFile opens(weights);
    } catch (const Error& error) {
      fail("{}; remove '{}' to train that run again", error.what(), run);
    }
  }
  const std::string other = other_setting(checkpoint / "config.toml", config);
  if (!other.empty()) {
    fail_usage(
        "'{}' holds a run with other settings (the first that differs: {}); choose another run.dir",
        run, other);
  }
}

}  // namespace

json decisive_settings(json tree) {
  Fields fields;
  RunConfig run;
  ConnectivityConfig connectivity;
  describe(fields, run);
  describe(fields, connectivity);
  return fields.deciding(std::move(tree), Decides::kOutcome);
}

std::string other_setting(const fs::path& file, const RunConfig& config) {
  const json before = decisive_settings(read_toml(file)),
             now = decisive_settings(parse_toml(to_toml(config), "the settings"));
  if (before == now) return "";
  return json::diff(before, now)[0].at("path").get<std::string>();
}

InstabilityRuns::InstabilityRuns(InstabilityPlan plan) : plan_(std::move(plan)) {
  std::sort(plan_.connectivity.spawn.begin(), plan_.connectivity.spawn.end());
  seeds_ = plan_.connectivity.seeds;
  if (seeds_.empty()) seeds_ = {plan_.config.run.seed};
  RunConfig config = plan_.config;
  const int64_t count = plan_model(config, plan_.where).decoder->arena().count();
  steps_ = resolve_steps(config, count);
  if (steps_ == 0) fail_usage("{}: set train.steps or train.tokens", plan_.where);
  warn_of_long_warmup(config, steps_);
  steps_ = SelfGuidedPlan(config, steps_).total_steps();
  // Rules change how many parameters a model has, but all variants are to see the same data.
  if (!plan_.connectivity.variant.empty() && !config.train.tokens.empty() &&
      config.train.nominal == 0) {
    plan_.config.train.nominal = static_cast<double>(count);
  }
  plan_rules();
  if (plan_.connectivity.spawn.back() >= steps_) {
    fail_usage("{}: connectivity.spawn has {}, but a run is only {} steps long", plan_.where,
               plan_.connectivity.spawn.back(), steps_);
  }
  if (plan_.connectivity.pairs != "twins" && plan_.source.empty()) {
    fail_usage("{}: connectivity.pairs = \"{}\" needs init.from, the model that is tuned",
               plan_.where, plan_.connectivity.pairs);
  }
}

// The rules as the runs' own config.toml will hold them.
void InstabilityRuns::plan_rules() {
  plan_model(plan_.config, plan_.where);
  variants_ = variants_of(plan_.connectivity);
  for (ConnectivityVariant& variant : variants_) {
    RunConfig config = plan_.config;
    config.transform = variant.transform;
    plan_model(config, fmt::format("{}: connectivity.variant \"{}\"", plan_.where, variant.name));
    variant.transform = config.transform;
  }
}

void InstabilityRuns::check_folders() const {
  for (const std::vector<Task>& tasks : {trunks(), copies()}) {
    for (const Task& task : tasks) {
      const Checkpoints own(task.config.run.dir);
      for (int64_t step : own.steps()) check_checkpoint(own.path(step), task.config);
    }
  }
}

fs::path InstabilityRuns::folder(int64_t seed, int64_t spawn) const {
  return fs::path(plan_.config.run.dir) / fmt::format("seed-{}", seed) /
         fmt::format("spawn-{:08}", spawn);
}

RunConfig InstabilityRuns::run_config(const fs::path& folder, int64_t seed) const {
  RunConfig config = plan_.config;
  config.run.dir = folder.string();
  config.run.seed = seed;
  config.eval.samples = 0;
  config.checkpoint.keep = 1;
  config.checkpoint.permanent.clear();
  return config;
}

std::vector<Member> InstabilityRuns::members(int64_t seed, int64_t spawn) const {
  const ConnectivityConfig& c = plan_.connectivity;
  const int64_t count = variants_.empty() ? c.copies : static_cast<int64_t>(variants_.size());
  std::vector<Member> all;
  for (int64_t i = 0; i < count; ++i) {
    const std::string name = variants_.empty() ? fmt::format("copy-{}", i + 1) : variants_[i].name;
    Member member{name, run_config(folder(seed, spawn) / name, seed)};
    if (differs_in(c, "order")) member.config.data.order_seed = copy_seed(seed, i + 1);
    if (differs_in(c, "noise")) member.config.run.noise_seed = copy_seed(seed, i + 1);
    if (!variants_.empty()) member.config.transform = variants_[i].transform;
    all.push_back(std::move(member));
  }
  return all;
}

std::vector<InstabilityRuns::Task> InstabilityRuns::trunks() const {
  std::vector<Task> tasks;
  std::vector<int64_t> stops;
  for (int64_t spawn : spawns()) {
    if (spawn > 0) stops.push_back(spawn);
  }
  if (stops.empty()) return tasks;
  for (int64_t seed : seeds_) {
    Task task{run_config(folder(seed, 0).parent_path() / "trunk", seed), {}, 0, stops};
    task.config.checkpoint.permanent = stops;
    tasks.push_back(std::move(task));
  }
  return tasks;
}

std::vector<InstabilityRuns::Task> InstabilityRuns::copies() const {
  std::vector<Task> tasks;
  for (int64_t seed : seeds_) {
    for (int64_t spawn : spawns()) {
      for (Member& member : members(seed, spawn)) {
        Task task{std::move(member.config), {}, spawn, {}};
        if (spawn > 0) task.trunk = folder(seed, 0).parent_path() / "trunk";
        tasks.push_back(std::move(task));
      }
    }
  }
  return tasks;
}

bool InstabilityRuns::train() {
  const StopSignals signals;  // one for all threads
  return run_all(trunks(), "trunks") && run_all(copies(), "copies");
}

int64_t InstabilityRuns::steps_of(const Task& task) const {
  return task.stops.empty() ? steps_ - task.spawn : task.stops.back();
}

// A pool of threads, each with its run. On the CPU they share the cores, whose number per run
// follows from the plan and not from what is left to do: a resumed analysis computes the same.
bool InstabilityRuns::run_all(const std::vector<Task>& tasks, const std::string& label) {
  if (tasks.empty()) return true;
  const int cores = at::get_num_threads();
  const bool cuda = plan_.device.is_cuda();
  int64_t wanted = plan_.connectivity.side_by_side;
  if (wanted == 0) wanted = cuda ? kSideBySideOnCuda : cores;
  const int64_t workers = std::min<int64_t>(wanted, static_cast<int64_t>(tasks.size()));
  const int threads_each = cuda ? cores : std::max(1, cores / static_cast<int>(workers));

  int64_t total = 0;
  for (const Task& task : tasks) total += steps_of(task);
  log_info("{}: {} runs, {} steps in all, {} at a time", label, tasks.size(), total, workers);
  Progress progress(label, total);
  std::mutex mutex;
  int64_t done = 0;
  std::atomic<size_t> next = 0;
  std::atomic<bool> complete = true;
  std::exception_ptr failure;
  const auto work = [&] {
    at::set_num_threads(threads_each);
    if (const CudaRuntime* runtime = cuda ? cuda_runtime() : nullptr) runtime->use_side_stream();
    for (size_t i; (i = next++) < tasks.size();) {
      try {
        const bool finished = run_task(tasks[i], [&] {
          const std::lock_guard<std::mutex> lock(mutex);
          progress.update(++done);
        });
        if (!finished) complete = false;
      } catch (...) {
        const std::lock_guard<std::mutex> lock(mutex);
        if (!failure) failure = std::current_exception();
        next = tasks.size();
      }
    }
  };
  std::vector<std::thread> threads;
  for (int64_t i = 0; i < workers; ++i) threads.emplace_back(work);
  for (std::thread& thread : threads) thread.join();
  at::set_num_threads(cores);
  progress.finish();
  if (failure) std::rethrow_exception(failure);
  return complete;
}

bool InstabilityRuns::run_task(const Task& task, const Progressed& progressed) const {
  if (StopSignals::received() != 0) return false;
  const Checkpoints own(task.config.run.dir);
  const std::optional<int64_t> newest = own.newest();
  const bool ready = task.stops.empty() ? newest == steps_
                                        : std::all_of(task.stops.begin(), task.stops.end(),
                                                      [&](int64_t stop) { return has(own, stop); });
  if (ready) return true;
  make_run_folder(task.config.run.dir);
  const RunSession session = open_session(task.config, plan_.data, plan_.source, plan_.device,
                                          plan_.where, plan_.names_tokenizer);
  RunReporter::Options options = reporter_options(session, plan_.device);
  options.silent = [&](int64_t) { progressed(); };
  options.resumed_from = task.stops.empty() ? newest : trunk_start(own, task.stops);
  RunReporter reporter(options);
  Trainer trainer(session.config, *session.model, session.data, session.steps, reporter);
  trainer.carry(session.carried);
  trainer.set_teacher(session.teacher.get());
  write_run_settings(session);
  if (!task.stops.empty()) return run_trunk(trainer, task);
  if (newest) {
    trainer.resume();
  } else if (!task.trunk.empty()) {
    trainer.branch(Checkpoints(task.trunk), task.spawn);
  }
  return trainer.run().finished;
}

// From the newest checkpoint before each missing stop: the list may have grown since.
bool InstabilityRuns::run_trunk(Trainer& trainer, const Task& task) const {
  const Checkpoints own(task.config.run.dir);
  for (int64_t stop : task.stops) {
    if (has(own, stop)) continue;
    const std::optional<int64_t> before = newest_before(own, stop);
    if (before && *before > trainer.position()) trainer.resume_at(*before);
    if (trainer.run(stop).step < stop) return false;
  }
  return true;
}

}  // namespace refract
