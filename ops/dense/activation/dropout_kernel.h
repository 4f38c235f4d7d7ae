// Launcher of the dropout kernel over raw device pointers, everything contiguous.
#pragma once
#include <cuda_runtime_api.h>

#include <cstdint>

#include "ops/common/dtype.h"
#include "ops/common/philox.h"

namespace refract {

struct DropoutArgs {
  const void* x;
  void* y;
  const int64_t* clock;  // on the device: step, index of the first element
  int64_t count;
  PhiloxKey key;
  float p, scale;
};
cudaError_t launch_dropout(const DropoutArgs& a, Dtype dtype, int multiprocessors,
                           cudaStream_t stream);

}  // namespace refract
