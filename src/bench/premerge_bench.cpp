#include "bench/premerge_bench.h"

#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "bench/inputs.h"
#include "bench/model.h"
#include "bench/timing.h"
#include "core/error.h"
#include "core/files.h"
#include "runs/model_folder.h"

namespace refract {
namespace {

// The largest power of two up to which the merged matrix was faster at every one. Past it only the
// first number of tokens at which it was not is timed.
int64_t threshold(const PremergeGroup& group, const BenchModel& bench,
                  const PremergeOptions& options, BenchReport& report) {
  const at::NoGradGuard no_grad;
  const at::Device device = bench.device.device;
  int64_t best = 0;
  for (int64_t tokens = 1; tokens <= options.most; tokens *= 2) {
    const at::Tensor x = random_input(tokens, group.shape.in_features, bench.device);
    ForwardContext context;
    context.weights_changed = false;
    const auto structured = [&] { return group.layer->structured().forward(context, x); };
    const auto merged = [&] { return group.layer->forward_merged(x); };
    check_against(group.layer->structured().forward({}, x), merged(), group.shape.kinds);
    // Twice in turn, the better of each: a disturbance must not decide.
    double slow = 1e300, fast = 1e300;
    for (int round = 0; round < 2; ++round) {
      slow = std::min(slow, time_work(device, options.settings.seconds / 2, structured).median_ms);
      fast = std::min(fast, time_work(device, options.settings.seconds / 2, merged).median_ms);
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

nlohmann::json thresholds_json(const PremergeTable& measured) {
  nlohmann::json thresholds = nlohmann::json::array();
  for (const PremergeThreshold& t : measured.all()) {
    thresholds.push_back({{"kinds", t.shape.kinds},
                          {"in", t.shape.in_features},
                          {"out", t.shape.out_features},
                          {"parameters", t.shape.parameters},
                          {"tokens", t.tokens}});
  }
  return thresholds;
}

}  // namespace

PremergeBench bench_premerge(const PremergeOptions& options) {
  if (options.most < 1) fail_usage("--most {} must be positive", options.most);
  const BenchModel bench = open_bench_model(options.source, options.settings);
  PremergeBench result{BenchReport("premerge", bench.device,
                                   {"kinds", "in", "out", "parameters", "tokens", "structured_ms",
                                    "merged_ms", "merged_gain"}),
                       {},
                       {},
                       {}};
  if (!bench.folder.empty()) {
    result.file = premerge_file(bench.folder);
    result.kept = PremergeTable::read(result.file);
  }
  for (const PremergeGroup& group : bench.premerged) {
    if (result.measured.find(group.shape, bench.device.name, bench.device.precision)) continue;
    if (!group.layer->mergeable()) continue;
    const PremergeThreshold found{group.shape, bench.device.name, bench.device.precision,
                                  threshold(group, bench, options, result.report)};
    result.measured.set(found);
    result.kept.set(found);
  }
  if (result.measured.all().empty())
    fail_usage("'{}' has no layers with a merged form to measure", options.source);
  result.report.extra()["thresholds"] = thresholds_json(result.measured);
  return result;
}

void keep_thresholds(const PremergeBench& bench) {
  write_file_atomically(bench.file, bench.kept.to_toml());
}

}  // namespace refract
