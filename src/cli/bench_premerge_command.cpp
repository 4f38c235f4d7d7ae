// refract bench premerge: from how many tokens on are the factors faster than the merged matrix.
#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "bench/bench_common.h"
#include "bench/bench_timing.h"
#include "cli/bench_options.h"
#include "cli/commands.h"
#include "core/error.h"
#include "core/files.h"
#include "ops/common/cuda_runtime.h"

namespace refract {
namespace {

class BenchPremergeCommand : public Command {
 public:
  std::string name() const override { return "bench premerge"; }
  std::string summary() const override {
    return "Measure up to how many tokens in a call a merged matrix beats its factors, and keep "
           "the answer in the run";
  }
  std::string example() const override {
    return "refract bench premerge recipes/structured/s-low-rank-32.toml --most 64";
  }
  void declare(CommandLine& line) override {
    line.positional("source", source_, "a recipe (.toml; nothing is kept), or a run");
    line.option("--most", most_, "the largest number of tokens to try");
    refract::declare(line, settings_);
  }
  int run() override;

 private:
  int64_t threshold(const PremergeGroup& group, const BenchModel& bench, BenchReport& report) const;

  std::string source_;
  int64_t most_ = 4096;
  BenchSettings settings_;
};

// The largest power of two up to which the merged matrix was faster at every one. Past it only the
// first number of tokens at which it was not is timed.
int64_t BenchPremergeCommand::threshold(const PremergeGroup& group, const BenchModel& bench,
                                        BenchReport& report) const {
  const at::NoGradGuard no_grad;
  const at::Device device = bench.device.device;
  int64_t best = 0;
  for (int64_t tokens = 1; tokens <= most_; tokens *= 2) {
    const at::Tensor x = random_input(tokens, group.shape.in_features, bench.device);
    ForwardContext context;
    context.weights_changed = false;
    const auto structured = [&] { return group.layer->structured().forward(context, x); };
    const auto merged = [&] { return group.layer->forward_merged(x); };
    check_against(group.layer->structured().forward({}, x), merged(), group.shape.kinds);
    // Twice in turn, the better of each: a disturbance must not decide.
    double slow = 1e300, fast = 1e300;
    for (int round = 0; round < 2; ++round) {
      slow = std::min(slow, time_work(device, settings_.seconds / 2, structured).median_ms);
      fast = std::min(fast, time_work(device, settings_.seconds / 2, merged).median_ms);
    }
    report.add({{"kinds", group.shape.kinds},
                {"in", group.shape.in_features},
                {"out", group.shape.out_features},
                {"parameters", group.shape.parameters},
                {"tokens", tokens},
                {"structured_ms", slow},
                {"merged_ms", fast},
                {"merged_gain", slow / fast}});
    if (fast > slow) break;
    best = tokens;
  }
  return best;
}

int BenchPremergeCommand::run() {
  if (most_ < 1) fail_usage("--most {} must be positive", most_);
  BenchModel bench = open_bench_model(source_, settings_);
  BenchReport report(
      "premerge", bench.device,
      {"kinds", "in", "out", "parameters", "tokens", "structured_ms", "merged_ms", "merged_gain"});
  PremergeTable measured;
  PremergeTable kept =
      bench.folder.empty() ? PremergeTable() : PremergeTable::read(premerge_file(bench.folder));
  for (const PremergeGroup& group : bench.premerged) {
    if (measured.find(group.shape, bench.device.name, bench.device.precision)) continue;
    if (!group.layer->mergeable()) continue;
    const PremergeThreshold found{group.shape, bench.device.name, bench.device.precision,
                                  threshold(group, bench, report)};
    measured.set(found);
    kept.set(found);
  }
  if (measured.all().empty())
    fail_usage("'{}' has no layers with a merged form to measure", source_);
  nlohmann::json thresholds = nlohmann::json::array();
  for (const PremergeThreshold& t : measured.all()) {
    thresholds.push_back({{"kinds", t.shape.kinds},
                          {"in", t.shape.in_features},
                          {"out", t.shape.out_features},
                          {"parameters", t.shape.parameters},
                          {"tokens", t.tokens}});
  }
  report.extra()["thresholds"] = thresholds;
  report.print(settings_.json);
  if (!settings_.json) {
    for (const PremergeThreshold& t : measured.all()) {
      fmt::print("{} {} -> {}: merged up to {} tokens\n", t.shape.kinds, t.shape.in_features,
                 t.shape.out_features, t.tokens);
    }
  }
  if (!bench.folder.empty()) {
    const auto path = premerge_file(bench.folder);
    write_file_atomically(path, kept.to_toml());
    fmt::print(stderr, "written to {}\n", path.string());
  }
  return 0;
}

}  // namespace

std::unique_ptr<Command> make_bench_premerge_command() {
  return std::make_unique<BenchPremergeCommand>();
}

}  // namespace refract
