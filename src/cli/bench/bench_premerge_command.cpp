// refract bench premerge: from how many tokens on are the factors faster than the merged matrix.
#include <fmt/format.h>

#include <cstdio>

#include "bench/premerge_bench.h"
#include "cli/bench/bench_options.h"
#include "core/system/command_line.h"

namespace refract {
namespace {

class BenchPremergeCommand : public Command {
 public:
  std::string name() const override { return "bench premerge"; }
  std::string summary() const override {
    return "Measure up to how many tokens in a call a merged matrix is faster than its factors, "
           "and keep the result in the run";
  }
  std::string example() const override {
    return "refract bench premerge recipes/structured/s-low-rank-32.toml --most 64";
  }
  void declare(CommandLine& line) override {
    line.positional("source", options_.source,
                    "a recipe (.toml; the result is not kept), or a run");
    line.option("--most", options_.most, "the largest number of tokens to try");
    refract::declare(line, options_.settings);
  }
  int run() override;

 private:
  PremergeOptions options_;
};

int BenchPremergeCommand::run() {
  const PremergeBench bench = bench_premerge(options_);
  bench.report.print(options_.settings.json);
  if (!options_.settings.json) {
    for (const PremergeThreshold& t : bench.measured.all()) {
      fmt::print("{} {} -> {}: merged up to {} tokens\n", t.shape.kinds, t.shape.in_features,
                 t.shape.out_features, t.tokens);
    }
  }
  if (!bench.file.empty()) {
    keep_thresholds(bench);
    fmt::print(stderr, "written to {}\n", bench.file.string());
  }
  return 0;
}

}  // namespace

std::unique_ptr<Command> make_bench_premerge_command() {
  return std::make_unique<BenchPremergeCommand>();
}

}  // namespace refract
