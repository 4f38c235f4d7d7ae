// Training steps, and a forward pass of their context (prefill).
#pragma once
#include <cstdint>
#include <string>

#include "bench/report.h"
#include "bench/settings.h"

namespace refract {

// Lists are written as on the command line: "4,8".
struct TrainingOptions {
  BenchSettings settings;
  std::string source;             // a recipe (.toml), or a run
  std::string batches, contexts;  // sequences of a step, tokens of a sequence; empty: the recipe's
  int64_t steps = 10;             // to time after the warm-up
};
// A row for every context and batch.
BenchReport bench_training(const TrainingOptions& options);

}  // namespace refract
