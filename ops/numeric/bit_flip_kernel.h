// Launcher of bit_flip over raw device pointers, everything contiguous.
#pragma once
#include <cuda_runtime_api.h>

#include <cstdint>

#include "ops/common/dtype.h"
#include "ops/common/philox.h"
#include "ops/numeric/flip_math.h"
#include "ops/numeric/rare_flips.h"

namespace refract {

struct BitFlipArgs {
  const void* x;
  const void* grad;  // null: the forward pass
  void* y;
  const int64_t* clock;  // on the device: step, index of the first element
  int64_t count;
  PhiloxKey key;
  numeric::Flips flips;
  numeric::RareFlips rare;  // where is_rare(flips)
};
cudaError_t launch_bit_flip(const BitFlipArgs& a, Dtype dtype, cudaStream_t stream);

}  // namespace refract
