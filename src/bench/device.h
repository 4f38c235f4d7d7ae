// Where a benchmark runs.
#pragma once
#include <c10/core/Device.h>
#include <c10/core/ScalarType.h>

#include <string>

#include "bench/settings.h"
#include "train/run_config.h"

namespace refract {

struct BenchDevice {
  at::Device device = at::kCPU;
  at::ScalarType dtype = at::kFloat;
  std::string name, precision;  // "NVIDIA H200", "bf16"
};

BenchDevice bench_device(const RunConfig& config);
// The same of settings without a recipe.
BenchDevice open_bench_device(const BenchSettings& settings);

}  // namespace refract
