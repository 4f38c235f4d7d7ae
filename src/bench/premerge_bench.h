// From how many tokens on factors are faster than the matrix they merge to.
#pragma once
#include <cstdint>
#include <filesystem>
#include <string>

#include "bench/report.h"
#include "bench/settings.h"
#include "transforms/premerge.h"

namespace refract {

struct PremergeOptions {
  BenchSettings settings;
  std::string source;   // a recipe (.toml), or a run
  int64_t most = 4096;  // the largest number of tokens to try
};

struct PremergeBench {
  BenchReport report;
  PremergeTable measured;
  // Where a run keeps its thresholds, and all it is to hold; empty for a recipe.
  std::filesystem::path file;
  PremergeTable kept;
};

// Measures every group of layers that has a merged form, once per shape; an error (usage) where
// there is none.
PremergeBench bench_premerge(const PremergeOptions& options);

// Writes the thresholds into the run.
void keep_thresholds(const PremergeBench& bench);

}  // namespace refract
