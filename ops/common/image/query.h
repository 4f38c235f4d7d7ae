// Asks the driver whether a kernel can run on the current device. For .cu files.
#pragma once
#include <cuda_runtime_api.h>

#include <array>
#include <atomic>

namespace refract {

// The answers for each device, since launchers ask before every launch.
class ImageQuery {
 public:
  bool fits(const void* kernel) {
    int device = 0;
    if (cudaGetDevice(&device) != cudaSuccess) return false;
    if (device >= static_cast<int>(known_.size())) return ask(kernel);
    std::atomic<int>& known = known_[device];
    if (known == 0) known = ask(kernel) ? 1 : -1;
    return known > 0;
  }

 private:
  static bool ask(const void* kernel) {
    cudaFuncAttributes attributes;
    const bool fits = cudaFuncGetAttributes(&attributes, kernel) == cudaSuccess;
    if (!fits) static_cast<void>(cudaGetLastError());  // else the next launch would report it
    return fits;
  }

  std::array<std::atomic<int>, 64> known_ = {};
};

}  // namespace refract
