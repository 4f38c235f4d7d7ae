#include "train/memory.h"

#include <sys/resource.h>

#include "ops/common/cuda_runtime.h"

namespace refract {

double peak_memory(at::Device device) {
  if (device.is_cuda() && cuda_runtime())
    return static_cast<double>(cuda_runtime()->peak_memory_allocated());
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  return static_cast<double>(usage.ru_maxrss) * 1024;
}

void reset_peak_memory(at::Device device) {
  if (device.is_cuda() && cuda_runtime()) cuda_runtime()->reset_peak();
}

}  // namespace refract
