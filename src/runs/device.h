// Where a run computes, and in which number format.
#pragma once
#include <c10/core/Device.h>
#include <c10/core/ScalarType.h>

#include <string>

#include "analysis/peak.h"
#include "train/run_config.h"

namespace refract {

// Sets CPU threads and determinism, and picks the device of train.device. Called before anything
// asks torch for CUDA.
at::Device open_device(const RunConfig& config);
// The GPU's name, or "CPU (2 threads)".
std::string device_name(at::Device device);
// What a measured threshold is kept under: the GPU's name, or the processor's and its threads.
std::string device_key(at::Device device);

// float32, or bfloat16 for train.precision = "bf16".
at::ScalarType compute_dtype(const RunConfig& config);
// The same, as the table of peak speeds names it.
Arithmetic arithmetic(const RunConfig& config);

}  // namespace refract
