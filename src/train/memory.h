// How much memory the process has needed.
#pragma once
#include <c10/core/Device.h>

namespace refract {

// Bytes at the peak: of the device's tensors since reset_peak_memory(), or on a CPU of the
// process's resident memory since it began.
double peak_memory(at::Device device);
// Begins a new peak; does nothing on a CPU.
void reset_peak_memory(at::Device device);

}  // namespace refract
