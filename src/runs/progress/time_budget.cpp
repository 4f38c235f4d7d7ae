#include "runs/progress/time_budget.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <nlohmann/json.hpp>
#include <optional>

#include "core/log.h"
#include "core/progress.h"
#include "core/toml.h"
#include "report/table.h"
#include "runs/run_session.h"
#include "train/checkpoints/checkpoints.h"
#include "train/schedule.h"
#include "train/self_guided.h"
#include "train/step.h"

namespace refract {
namespace {

namespace fs = std::filesystem;

constexpr int64_t kLeastSteps = 100;
constexpr double kTimedSeconds = 3;

// Of the run in the folder; 0 where there is none to go on with.
int64_t recorded_steps(const fs::path& folder) {
  if (!fs::exists(folder / "config.toml") || !Checkpoints(folder).newest()) return 0;
  const nlohmann::json settings = read_toml(folder / "config.toml");
  const nlohmann::json steps =
      settings.value(nlohmann::json::json_pointer("/train/steps"), nlohmann::json(0));
  return steps.is_number_integer() ? steps.get<int64_t>() : 0;
}

double timed_step(const RunConfig& config, const Dataset& data, const fs::path& source,
                  at::Device device, const std::string& where) {
  constexpr int64_t kSome = 1000;  // steps of a run that is never finished
  RunConfig probe = config;
  probe.train.steps = kSome;
  const RunSession session = open_session(std::move(probe), data, source, device, where);
  TrainStep step(*session.model, session.config, session.data.train, kSome);
  step.set_teacher(session.teacher.get());
  int64_t done = 0;
  const auto seconds_of = [&](int64_t steps) {
    const auto start = std::chrono::steady_clock::now();
    for (int64_t i = 0; i < steps; ++i, ++done) step.run(done, done * config.train.batch);
    std::optional<int64_t> bad;
    step.take_records(bad);  // waits for the device
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  };
  const int64_t block = device.is_cuda() ? 10 : 1;
  seconds_of(block);  // libraries load, a graph is captured
  double seconds = 0;
  const int64_t first = done;
  while (seconds < kTimedSeconds && done + block <= kSome) seconds += seconds_of(block);
  return seconds / static_cast<double>(done - first);
}

}  // namespace

int64_t steps_within(double minutes, double step_seconds) {
  const double fit = std::floor(60 * minutes / step_seconds);
  if (!(fit > kLeastSteps)) return kLeastSteps;
  const double unit = std::pow(10, std::floor(std::log10(fit)) - 1);
  return static_cast<int64_t>(unit * std::floor(fit / unit));
}

void settle_steps(RunConfig& config, const Dataset& data, const fs::path& source, at::Device device,
                  const std::string& where, bool resume) {
  if (config.train.steps > 0 || !config.train.tokens.empty() || config.train.minutes == 0) return;
  if (resume) config.train.steps = recorded_steps(config.run.dir);
  if (config.train.steps > 0) return;
  const double seconds = timed_step(config, data, source, device, where);
  config.train.steps = steps_within(config.train.minutes, seconds);
  log_info("a step takes {} ms here: {} steps in {} minutes (train.steps decides it otherwise)",
           format_number(1e3 * seconds, 3), format_integer(config.train.steps),
           format_number(config.train.minutes));
}

void warn_of_long_warmup(const RunConfig& config, int64_t steps) {
  const int64_t all = SelfGuidedPlan(config, steps).total_steps();
  const int64_t warmup = warmup_steps(config, all);
  if (warmup < all) return;
  log_warning(
      "schedule.warmup = {} takes {} steps and the run has {}: the learning rate only rises; a "
      "number below 1 is a fraction of all steps",
      format_number(config.schedule.warmup), warmup, all);
}

}  // namespace refract
