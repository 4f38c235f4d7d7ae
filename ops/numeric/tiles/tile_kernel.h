// Launchers of analog_inputs and analog_collect_ over raw device pointers, everything contiguous.
#pragma once
#include <cuda_runtime_api.h>

#include <cstdint>

#include "ops/common/dtype.h"
#include "ops/common/philox.h"

namespace refract {

struct AnalogInputsArgs {
  const void* x;   // [rows, columns]
  const float* r;  // [rows, tiles], or [tiles] where `shared`
  void* u;         // as x
  int64_t rows, columns, tiles, tile_rows;
  bool shared, whole;  // whole: rounded to whole numbers
  float steps;
};
cudaError_t launch_analog_inputs(const AnalogInputsArgs& a, Dtype dtype, cudaStream_t stream);

struct AnalogCollectArgs {
  float* y;  // [rows, columns]
  const float *z, *scale, *r, *out;
  const int64_t* clock;  // null without noise
  int64_t rows, columns;
  bool shared;         // one r
  float noise, steps;  // steps: 0 without a converter
  float bound;         // 0: none
  PhiloxKey key;
};
cudaError_t launch_analog_collect(const AnalogCollectArgs& a, cudaStream_t stream);

}  // namespace refract
