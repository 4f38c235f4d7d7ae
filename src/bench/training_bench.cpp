#include "bench/training_bench.h"

#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>
#include <optional>
#include <vector>

#include "analysis/model_flops.h"
#include "analysis/peak.h"
#include "bench/inputs.h"
#include "bench/model.h"
#include "bench/timing.h"
#include "core/error.h"
#include "data/tokens.h"
#include "runs/device.h"
#include "train/memory.h"
#include "train/step.h"

namespace refract {
namespace {

// The recipe's settings with another batch and context.
RunConfig sized(RunConfig config, int64_t batch, int64_t context) {
  config.data.context = context;
  config.train.batch = batch;
  if (config.train.micro_batch > batch ||
      (config.train.micro_batch > 0 && batch % config.train.micro_batch != 0))
    config.train.micro_batch = 0;
  return config;
}

// Seconds of each of `steps` training steps.
std::vector<double> time_steps(BenchModel& bench, const RunConfig& config, int64_t steps) {
  constexpr int64_t kWarmUp = 5;  // three steps, the capture, and its first replay
  const int64_t batch = config.train.batch, total = kWarmUp + steps;
  const at::Tensor tokens =
      random_tokens(1, batch * total * config.data.context + 1, config.model.vocab_size, 2);
  const int32_t* data = tokens.const_data_ptr<int32_t>();
  reset_peak_memory(bench.device.device);
  TrainStep step(*bench.model, config, make_token_stream({data, data + tokens.numel()}), total);
  std::vector<double> seconds;
  for (int64_t i = 0; i < kWarmUp; ++i) step.run(i, i * batch);
  for (int64_t i = kWarmUp; i < total; ++i)
    seconds.push_back(seconds_of(bench.device.device, [&] { step.run(i, i * batch); }));
  std::optional<int64_t> bad;
  step.take_records(bad);
  if (bad)
    fail("the loss of step {} of the benchmark is not finite, so no time would mean anything",
         *bad);
  return seconds;
}

double prefill_ms(BenchModel& bench, int64_t batch, int64_t context, double seconds) {
  const at::Device device = bench.device.device;
  const at::Tensor prompt =
      random_tokens(batch, context, bench.config.model.vocab_size, 3).to(device);
  const at::NoGradGuard no_grad;
  return time_work(device, seconds, [&] { bench.model->hidden({}, prompt); }).median_ms;
}

void time_size(BenchModel& bench, const TrainingOptions& options, int64_t batch, int64_t context,
               BenchReport& report) {
  const RunConfig config = sized(bench.config, batch, context);
  const double per_step = median(time_steps(bench, config, options.steps));
  const double memory = peak_memory(bench.device.device);
  const double prefill = prefill_ms(bench, batch, context, options.settings.seconds);
  const auto count = static_cast<double>(batch * context);
  const double flops = training_flops_per_token(shape_of(*bench.model, context)).total();
  const auto mfu =
      model_flops_utilization(count / per_step, flops, bench.device.name, arithmetic(config));
  report.add({{"batch", batch},
              {"context", context},
              {"step_ms", per_step * 1e3},
              {"tokens_per_s", std::llround(count / per_step)},
              {"mfu", mfu ? nlohmann::json(*mfu) : nlohmann::json()},
              {"memory_mib", std::llround(memory / (1 << 20))},
              {"prefill_ms", prefill},
              {"prefill_tokens_per_s", std::llround(count / prefill * 1e3)}});
}

}  // namespace

BenchReport bench_training(const TrainingOptions& options) {
  if (options.steps < 1) fail_usage("--steps {} must be positive", options.steps);
  const auto given = parse_sizes(options.contexts, "--contexts", "1");
  BenchModel bench = open_bench_model(options.source, options.settings,
                                      *std::max_element(given.begin(), given.end()));
  BenchReport report("train", bench.device,
                     {"batch", "context", "step_ms", "tokens_per_s", "mfu", "memory_mib",
                      "prefill_ms", "prefill_tokens_per_s"});
  const RunConfig& config = bench.config;
  for (const int64_t context :
       parse_sizes(options.contexts, "--contexts", std::to_string(config.data.context))) {
    check_model(bench, context);
    for (const int64_t batch :
         parse_sizes(options.batches, "--batches", std::to_string(config.train.batch)))
      time_size(bench, options, batch, context, report);
  }
  return report;
}

}  // namespace refract
