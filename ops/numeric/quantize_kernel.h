// Launcher of number_quantize over raw device pointers, everything contiguous.
#pragma once
#include <cuda_runtime_api.h>

#include <cstdint>

#include "ops/common/dtype.h"
#include "ops/common/philox.h"
#include "ops/numeric/format_math.h"

namespace refract {

struct NumberArgs {
  const void* x;
  void* y;                        // [matrices, rows, columns], as x
  const numeric::Limits* tensor;  // of all of x; null where the format does not ask for them
  const int64_t* clock;           // null without stochastic rounding
  int64_t matrices, rows, columns;
  int64_t block;       // at least 1, at most a line's length
  bool along_columns;  // a line is a column
  bool of_tensor;      // one scale for all
  numeric::Element format;
  PhiloxKey key;
};
cudaError_t launch_number_quantize(const NumberArgs& a, Dtype dtype, cudaStream_t stream);

}  // namespace refract
