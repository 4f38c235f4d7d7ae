// Launcher of normal_noise over raw device pointers.
#pragma once
#include <cuda_runtime_api.h>

#include <cstdint>

#include "ops/common/philox.h"

namespace refract {

// y: float [count]; clock: int64 [2].
cudaError_t launch_normal_noise(float* y, int64_t count, PhiloxKey key, const int64_t* clock,
                                cudaStream_t stream);

}  // namespace refract
