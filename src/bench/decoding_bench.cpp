#include "bench/decoding_bench.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/full.h>

#include <algorithm>
#include <cmath>
#include <exception>
#include <nlohmann/json.hpp>
#include <vector>

#include "bench/inputs.h"
#include "bench/model.h"
#include "bench/timing.h"
#include "core/error.h"
#include "decode/generation.h"
#include "ops/common/cuda_runtime.h"
#include "train/memory.h"

namespace refract {
namespace {

// Token by token with lengths on the device against the whole sequence at once.
void check_cache(BenchModel& bench) {
  if (!bench.model->follows_lengths()) return;
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

std::vector<std::vector<TokenId>> prompts(const BenchModel& bench, int64_t batch, int64_t length) {
  const at::Tensor tokens = random_tokens(batch, length, bench.config.model.vocab_size, 4);
  const int32_t* data = tokens.const_data_ptr<int32_t>();
  std::vector<std::vector<TokenId>> all;
  for (int64_t i = 0; i < batch; ++i) all.emplace_back(data + i * length, data + (i + 1) * length);
  return all;
}

SamplingOptions greedy(int64_t tokens) {
  SamplingOptions options;
  options.temperature = 0;
  options.max_tokens = tokens;
  return options;
}

bool out_of_memory(const std::exception& error) {
  return std::string(error.what()).find("out of memory") != std::string::npos;
}

// "1,64,max" in its parts.
struct Batches {
  std::string given;  // "1,64"
  bool largest = false;
};
Batches parse_batches(std::string text, at::Device device) {
  const bool cuda = device.is_cuda();
  if (text.empty()) text = cuda ? "1,64,max" : "1,16";
  const bool largest = text == "max" || text.ends_with(",max");
  if (largest) text.resize(text.size() - std::min<size_t>(text.size(), 4));
  if (largest && !(cuda && cuda_runtime()))
    fail_usage("--batches max is for GPUs; on a CPU, give sizes");
  return {text, largest};
}

class DecodingBench {
 public:
  DecodingBench(const DecodingOptions& options, BenchModel& bench, BenchReport& report)
      : options_(options), bench_(bench), report_(report) {}

  void time_given(const std::string& batches);
  void time_largest();

 private:
  double memory_of(int64_t batch) const;
  int64_t largest_batch() const;
  bool time_batch(int64_t batch);

  const DecodingOptions& options_;
  BenchModel& bench_;
  BenchReport& report_;
};

// Bytes at the worst: at the end of the generation, captured.
double DecodingBench::memory_of(int64_t batch) const {
  constexpr int64_t kSteps = 3;
  const int64_t length = options_.prompt + options_.generate;
  reset_peak_memory(bench_.device.device);
  Generation generation(*bench_.model, batch, length, greedy(kSteps), true);
  generation.start(prompts(bench_, batch, length - kSteps));
  generation.run({});
  return peak_memory(bench_.device.device);
}

// Memory grows with the batch along a line, which two batches give. A margin is left for what the
// allocator can't use.
int64_t DecodingBench::largest_batch() const {
  constexpr int64_t kSmall = 256, kLarge = 512, kMultiple = 64;
  constexpr double kUsable = 0.94;
  const double small = memory_of(kSmall), large = memory_of(kLarge);
  const double per_sequence = std::max(1.0, (large - small) / (kLarge - kSmall));
  const double all = kUsable * static_cast<double>(cuda_runtime()->total_memory());
  const auto batch = static_cast<int64_t>((all - small) / per_sequence) + kSmall;
  return std::max<int64_t>(1, batch / kMultiple * kMultiple);
}

// False where the batch does not fit.
bool DecodingBench::time_batch(int64_t batch) {
  const at::Device device = bench_.device.device;
  const int64_t prompt = options_.prompt, generate = options_.generate;
  reset_peak_memory(device);
  std::vector<double> seconds;
  bool captured = false;
  try {
    Generation generation(*bench_.model, batch, prompt + generate, greedy(generate),
                          bench_.config.train.cuda_graph != "off");
    const auto start = prompts(bench_, batch, prompt);
    const auto once = [&] {
      generation.start(start);
      generation.run({});
    };
    once();  // chooses kernels and captures graphs
    for (int64_t i = 0; i < options_.repeats; ++i) seconds.push_back(seconds_of(device, once));
    captured = generation.captured();
  } catch (const std::exception& error) {
    if (!out_of_memory(error)) throw;
    return false;
  }
  const double time = median(seconds);
  report_.add({{"batch", batch},
               {"prompt", prompt},
               {"generate", generate},
               {"seconds", time},
               {"ms_per_step", time * 1e3 / static_cast<double>(generate)},
               {"tokens_per_s", std::llround(static_cast<double>(batch * generate) / time)},
               {"memory_mib", std::llround(peak_memory(device) / (1 << 20))},
               {"graph", captured ? "yes" : "no"}});
  return true;
}

void DecodingBench::time_given(const std::string& batches) {
  for (const int64_t batch : parse_sizes(batches, "--batches")) {
    if (!time_batch(batch)) fail("a batch of {} does not fit in memory", batch);
  }
}

void DecodingBench::time_largest() {
  int64_t batch = largest_batch();
  while (!time_batch(batch)) {
    if (batch < 2) fail("not even one sequence fits in the GPU's memory");
    batch = batch > 128 ? batch * 15 / 16 / 64 * 64 : batch / 2;
    cuda_runtime()->empty_cache();
  }
}

}  // namespace

BenchReport bench_decoding(const DecodingOptions& options) {
  const int64_t length = options.prompt + options.generate;
  if (options.prompt < 1) fail_usage("--prompt {} must be positive", options.prompt);
  if (options.generate < 4) fail_usage("--generate {} must be at least 4", options.generate);
  if (options.repeats < 1) fail_usage("--repeats {} must be positive", options.repeats);
  BenchModel bench = open_bench_model(options.source, options.settings, length);
  const at::NoGradGuard no_grad;
  const Batches batches = parse_batches(options.batches, bench.device.device);
  check_model(bench, std::min<int64_t>(length, 128));
  check_cache(bench);
  BenchReport report("decode", bench.device,
                     {"batch", "prompt", "generate", "seconds", "ms_per_step", "tokens_per_s",
                      "memory_mib", "graph"});
  report.extra()["parameters"] = bench.model->arena().count();
  DecodingBench decoding(options, bench, report);
  if (!batches.given.empty()) decoding.time_given(batches.given);
  if (batches.largest) decoding.time_largest();
  return report;
}

}  // namespace refract
