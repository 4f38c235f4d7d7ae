#include "bench/device.h"

#include <nlohmann/json.hpp>

#include "runs/device.h"

namespace refract {

BenchDevice bench_device(const RunConfig& config) {
  BenchDevice bench;
  bench.device = open_device(config);
  bench.dtype = compute_dtype(config);
  bench.name = device_key(bench.device);
  bench.precision = config.train.precision;
  return bench;
}

BenchDevice open_bench_device(const BenchSettings& settings) {
  return bench_device(
      make_run_config(overrides_tree(settings.with_precision()), "the command line"));
}

}  // namespace refract
