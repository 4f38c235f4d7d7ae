// How much memory the process has needed.
#pragma once
#include <c10/core/Device.h>

namespace refract {

// Bytes at the peak: of the device's tensors since the runtime's last reset_peak(), or on a CPU of
// the process's resident memory.
double peak_memory(at::Device device);

}  // namespace refract
