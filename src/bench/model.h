// A whole model to time.
#pragma once
#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "bench/device.h"
#include "bench/settings.h"
#include "model/decoder.h"
#include "train/run_config.h"
#include "transforms/premerge.h"

namespace refract {

// A recipe's with drawn weights, or a run's, with merged forms beside all layers that have one; the
// thresholds are the caller's to set.
struct BenchModel {
  RunConfig config;
  std::filesystem::path folder;  // of a run's checkpoint; empty for a recipe
  BenchDevice device;
  std::unique_ptr<Decoder> model;
  std::vector<PremergeGroup> premerged;

  // 0: structured forms alone; kPremergeAlways: merged ones alone; unset: as measured, or the
  // default.
  void set_premerge(std::optional<int64_t> tokens);
};

// `least_context`: positions that the model must have.
BenchModel open_bench_model(const std::string& source, const BenchSettings& settings,
                            int64_t least_context = 0);

// Compares a forward pass over random tokens with the same model in its merged forms, which is what
// its layers are to compute.
void check_model(BenchModel& bench, int64_t tokens);

}  // namespace refract
