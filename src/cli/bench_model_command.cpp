// refract bench train, refract bench decode: whole models, of a recipe or of a run.
#include <ATen/core/grad_mode.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/full.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "analysis/model_flops.h"
#include "analysis/peak.h"
#include "bench/bench_common.h"
#include "bench/bench_timing.h"
#include "cli/bench_options.h"
#include "cli/commands.h"
#include "core/error.h"
#include "core/progress.h"
#include "decode/generation.h"
#include "ops/common/cuda_runtime.h"
#include "train/memory.h"
#include "train/step.h"

namespace refract {
namespace {

void reset_peak(at::Device device) {
  if (device.is_cuda() && cuda_runtime()) cuda_runtime()->reset_peak();
}

double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

class BenchTrainCommand : public Command {
 public:
  std::string name() const override { return "bench train"; }
  std::string summary() const override {
    return "Time a recipe's training step, and a forward pass of its context (prefill)";
  }
  std::string example() const override {
    return "refract bench train recipes/demo.toml --batches 4 --contexts 64,128";
  }
  void declare(CommandLine& line) override {
    line.positional("source", source_, "a recipe (.toml), or a run");
    line.option("--batches", batches_, "sequences of a step; default the recipe's");
    line.option("--contexts", contexts_, "tokens of a sequence; default the recipe's");
    line.option("--steps", steps_, "steps to time after the warm-up");
    refract::declare(line, settings_);
  }
  int run() override;

 private:
  void time_size(BenchModel& bench, int64_t batch, int64_t context, BenchReport& report);

  std::string source_, batches_, contexts_;
  int64_t steps_ = 10;
  BenchSettings settings_;
};

int BenchTrainCommand::run() {
  if (steps_ < 1) fail_usage("--steps {} must be positive", steps_);
  const auto given = parse_sizes(contexts_, "--contexts", "1");
  BenchModel bench =
      open_bench_model(source_, settings_, *std::max_element(given.begin(), given.end()));
  BenchReport report("train", bench.device,
                     {"batch", "context", "step_ms", "tokens_per_s", "mfu", "memory_mib",
                      "prefill_ms", "prefill_tokens_per_s"});
  const RunConfig& config = bench.config;
  for (const int64_t context :
       parse_sizes(contexts_, "--contexts", std::to_string(config.data.context))) {
    check_model(bench, context);
    for (const int64_t batch :
         parse_sizes(batches_, "--batches", std::to_string(config.train.batch)))
      time_size(bench, batch, context, report);
  }
  report.print(settings_.json);
  return 0;
}

void BenchTrainCommand::time_size(BenchModel& bench, int64_t batch, int64_t context,
                                  BenchReport& report) {
  constexpr int64_t kWarmUp = 5;  // three steps, the capture, and its first replay
  RunConfig config = bench.config;
  config.data.context = context;
  config.train.batch = batch;
  if (config.train.micro_batch > batch ||
      (config.train.micro_batch > 0 && batch % config.train.micro_batch != 0))
    config.train.micro_batch = 0;
  const at::Device device = bench.device.device;
  const int64_t total = kWarmUp + steps_;
  const at::Tensor tokens =
      random_tokens(1, batch * total * context + 1, config.model.vocab_size, 2);
  const int32_t* data = tokens.const_data_ptr<int32_t>();
  reset_peak(device);
  std::vector<double> seconds;
  {
    TrainStep step(*bench.model, config, make_token_stream({data, data + tokens.numel()}), total);
    std::optional<int64_t> bad;
    for (int64_t i = 0; i < kWarmUp; ++i) step.run(i, i * batch);
    for (int64_t i = kWarmUp; i < total; ++i)
      seconds.push_back(seconds_of(device, [&] { step.run(i, i * batch); }));
    step.take_records(bad);
    if (bad) fail("step {} of the benchmark has no finite loss; no time would mean anything", *bad);
  }
  const double per_step = median(seconds), memory = peak_memory(device);
  const at::Tensor prompt = random_tokens(batch, context, config.model.vocab_size, 3).to(device);
  Timing prefill;
  {
    const at::NoGradGuard no_grad;
    prefill = time_work(device, settings_.seconds, [&] { bench.model->hidden({}, prompt); });
  }
  const auto count = static_cast<double>(batch * context);
  const double flops = training_flops_per_token(shape_of(*bench.model, context)).total();
  const auto mfu = model_flops_utilization(
      count / per_step, flops, bench.device.name,
      bench.device.precision == "bf16" ? Arithmetic::kBf16 : Arithmetic::kFp32);
  report.add({{"batch", batch},
              {"context", context},
              {"step_ms", per_step * 1e3},
              {"tokens_per_s", std::llround(count / per_step)},
              {"mfu", mfu ? nlohmann::json(*mfu) : nlohmann::json()},
              {"memory_mib", std::llround(memory / (1 << 20))},
              {"prefill_ms", prefill.median_ms},
              {"prefill_tokens_per_s", std::llround(count / prefill.median_ms * 1e3)}});
}

class BenchDecodeCommand : public Command {
 public:
  std::string name() const override { return "bench decode"; }
  std::string summary() const override {
    return "Time the decoding of a recipe's or a run's model, at given batches or the largest";
  }
  std::string example() const override {
    return "refract bench decode recipes/demo.toml --batches 1,8 --generate 32";
  }
  void declare(CommandLine& line) override {
    line.positional("source", source_, "a recipe (.toml), or a run");
    line.option("--batches", batches_,
                "sequences together, or \"max\": as many as fit on the GPU; default 1,16, on "
                "CUDA 1,64,max");
    line.option("--prompt", prompt_, "tokens of a prompt");
    line.option("--generate", generate_, "tokens to make");
    line.option("--repeats", repeats_, "runs to time; the median counts");
    refract::declare(line, settings_);
  }
  int run() override;

 private:
  SamplingOptions sampling(int64_t tokens) const {
    SamplingOptions options;
    options.temperature = 0;
    options.max_tokens = tokens;
    return options;
  }
  std::vector<std::vector<TokenId>> prompts(int64_t batch, int64_t length,
                                            const BenchModel& bench) const;
  void check_cache(BenchModel& bench) const;
  double memory_of(BenchModel& bench, int64_t batch) const;
  int64_t largest_batch(BenchModel& bench) const;
  bool time_batch(BenchModel& bench, int64_t batch, BenchReport& report) const;

  std::string source_, batches_;
  int64_t prompt_ = 1, generate_ = 256, repeats_ = 3;
  BenchSettings settings_;
};

std::vector<std::vector<TokenId>> BenchDecodeCommand::prompts(int64_t batch, int64_t length,
                                                              const BenchModel& bench) const {
  const at::Tensor tokens = random_tokens(batch, length, bench.config.model.vocab_size, 4);
  const int32_t* data = tokens.const_data_ptr<int32_t>();
  std::vector<std::vector<TokenId>> all;
  for (int64_t i = 0; i < batch; ++i) all.emplace_back(data + i * length, data + (i + 1) * length);
  return all;
}

// Token by token with lengths on the device against the whole sequence at once.
void BenchDecodeCommand::check_cache(BenchModel& bench) const {
  if (!bench.model->follows_lengths()) return;
  const at::NoGradGuard no_grad;
  constexpr int64_t kBatch = 2, kTokens = 8;
  const at::Device device = bench.device.device;
  const at::Tensor tokens =
      random_tokens(kBatch, kTokens, bench.config.model.vocab_size, 5).to(device);
  KvCache cache = bench.model->make_cache(kBatch, kTokens);
  for (at::Tensor& keys : cache.keys) keys.zero_();
  for (at::Tensor& values : cache.values) values.zero_();
  cache.lengths = at::full({kBatch}, 0, at::TensorOptions().dtype(at::kLong).device(device));
  cache.attended = kTokens;
  ForwardContext context;
  context.cache = &cache;
  std::vector<at::Tensor> steps;
  for (int64_t i = 0; i < kTokens; ++i)
    steps.push_back(bench.model->hidden(context, tokens.narrow(1, i, 1).contiguous()));
  check_against(at::cat(steps, 1), bench.model->hidden({}, tokens), "decoding with a cache");
}

// Bytes at the worst: at the end of the generation, captured.
double BenchDecodeCommand::memory_of(BenchModel& bench, int64_t batch) const {
  constexpr int64_t kSteps = 3;
  reset_peak(bench.device.device);
  Generation generation(*bench.model, batch, prompt_ + generate_, sampling(kSteps), true);
  generation.start(prompts(batch, prompt_ + generate_ - kSteps, bench));
  generation.run({});
  return peak_memory(bench.device.device);
}

// Memory grows with the batch along a line, which two batches give. A margin is left for what the
// allocator can't use.
int64_t BenchDecodeCommand::largest_batch(BenchModel& bench) const {
  constexpr int64_t kSmall = 256, kLarge = 512, kMultiple = 64;
  constexpr double kUsable = 0.94;
  const double small = memory_of(bench, kSmall), large = memory_of(bench, kLarge);
  const double per_sequence = std::max(1.0, (large - small) / (kLarge - kSmall));
  const double all = kUsable * static_cast<double>(cuda_runtime()->total_memory());
  const auto batch = static_cast<int64_t>((all - small) / per_sequence) + kSmall;
  return std::max<int64_t>(1, batch / kMultiple * kMultiple);
}

bool out_of_memory(const std::exception& error) {
  return std::string(error.what()).find("out of memory") != std::string::npos;
}

// False where the batch does not fit.
bool BenchDecodeCommand::time_batch(BenchModel& bench, int64_t batch, BenchReport& report) const {
  const at::Device device = bench.device.device;
  reset_peak(device);
  std::vector<double> seconds;
  bool captured = false;
  try {
    Generation generation(*bench.model, batch, prompt_ + generate_, sampling(generate_),
                          bench.config.train.cuda_graph != "off");
    const auto start = prompts(batch, prompt_, bench);
    const auto once = [&] {
      generation.start(start);
      generation.run({});
    };
    once();  // chooses kernels and captures graphs
    for (int64_t i = 0; i < repeats_; ++i) seconds.push_back(seconds_of(device, once));
    captured = generation.captured();
  } catch (const std::exception& error) {
    if (!out_of_memory(error)) throw;
    return false;
  }
  const double time = median(seconds);
  report.add({{"batch", batch},
              {"prompt", prompt_},
              {"generate", generate_},
              {"seconds", time},
              {"ms_per_step", time * 1e3 / static_cast<double>(generate_)},
              {"tokens_per_s", std::llround(static_cast<double>(batch * generate_) / time)},
              {"memory_mib", std::llround(peak_memory(device) / (1 << 20))},
              {"graph", captured ? "yes" : "no"}});
  return true;
}

int BenchDecodeCommand::run() {
  if (prompt_ < 1) fail_usage("--prompt {} must be positive", prompt_);
  if (generate_ < 4) fail_usage("--generate {} must be at least 4", generate_);
  if (repeats_ < 1) fail_usage("--repeats {} must be positive", repeats_);
  BenchModel bench = open_bench_model(source_, settings_, prompt_ + generate_);
  const at::NoGradGuard no_grad;
  const bool cuda = bench.device.device.is_cuda();
  std::string batches = batches_.empty() ? (cuda ? "1,64,max" : "1,16") : batches_;
  const bool largest = batches == "max" || batches.ends_with(",max");
  if (largest) batches.resize(batches.size() - std::min<size_t>(batches.size(), 4));
  if (largest && !(cuda && cuda_runtime()))
    fail_usage("--batches max asks for a GPU's memory; name sizes on a CPU");
  check_model(bench, std::min<int64_t>(prompt_ + generate_, 128));
  check_cache(bench);
  BenchReport report("decode", bench.device,
                     {"batch", "prompt", "generate", "seconds", "ms_per_step", "tokens_per_s",
                      "memory_mib", "graph"});
  report.extra()["parameters"] = bench.model->arena().count();
  if (!batches.empty()) {
    for (const int64_t batch : parse_sizes(batches, "--batches")) {
      if (!time_batch(bench, batch, report)) fail("a batch of {} does not fit in memory", batch);
    }
  }
  if (largest) {
    int64_t batch = largest_batch(bench);
    while (!time_batch(bench, batch, report)) {
      if (batch < 2) fail("not even one sequence fits in the GPU's memory");
      batch = batch > 128 ? batch * 15 / 16 / 64 * 64 : batch / 2;
      cuda_runtime()->empty_cache();
    }
  }
  report.print(settings_.json);
  return 0;
}

}  // namespace

std::unique_ptr<Command> make_bench_train_command() {
  return std::make_unique<BenchTrainCommand>();
}
std::unique_ptr<Command> make_bench_decode_command() {
  return std::make_unique<BenchDecodeCommand>();
}

}  // namespace refract
