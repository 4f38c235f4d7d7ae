// Launchers of the optical products' kernels over raw device pointers, everything contiguous.
#pragma once
#include <cuda_runtime_api.h>

#include <cstdint>

#include "ops/common/dtype.h"
#include "ops/common/philox.h"

namespace refract {

constexpr int kOpticalMembers = 8;
constexpr int kOpticalParts = 512;  // blocks per member that look at an operand

// Which elements of a tensor belong to which member, and each member's range: float [2].
struct OpticalMembers {
  int count;
  int64_t begin[kOpticalMembers + 1];  // rows of an operand, columns of an output
  float* range[kOpticalMembers];
};

// seen: float [members, kOpticalParts, 2] = what each block saw of its member's elements. Members
// whose range is set are skipped where `only_unset`.
struct OpticalSeenArgs {
  const void* x;
  OpticalMembers members;  // `begin` counts rows of `width` elements
  int64_t width;
  bool only_unset;
  float* seen;
};
cudaError_t launch_optical_seen(const OpticalSeenArgs& a, Dtype dtype, cudaStream_t stream);

// range = moved(range, merge of seen [parts, 2], smooth).
cudaError_t launch_optical_move(float* range, const float* seen, int parts, float smooth,
                                cudaStream_t stream);

struct OpticalQuantizeArgs {
  const void* x;
  void* y;
  const float *range, *seen;  // seen: [kOpticalParts, 2], for an unset range
  int64_t count, slice;       // elements, elements per slice of dimension 0
  int levels;
  float lut_min, shared;
  bool draws;
  PhiloxKey key;
  const int64_t* clock;  // or null
};
cudaError_t launch_optical_quantize(const OpticalQuantizeArgs& a, Dtype dtype, int multiprocessors,
                                    cudaStream_t stream);

// Codes, their sums and the range of x; see OpticalOperand. `unset` is launch_optical_seen's
// result, or null where all ranges are set.
struct OpticalEncodeArgs {
  const void* x;
  void* codes;  // fp16
  float *sums, *used, *seen;
  const float* unset;
  OpticalMembers members;  // of rows
  int64_t width;
  int levels;
  float lut_min;
  unsigned* ticket;  // set to 0 for the output's launch; may be null
};
cudaError_t launch_optical_encode(const OpticalEncodeArgs& a, Dtype dtype, cudaStream_t stream);

// A range that the last block of the output's launch moves.
struct OpticalMove {
  float* range;
  const float* seen;  // [kOpticalParts, 2]
};

struct OpticalOutputArgs {
  const void* product;  // fp16 for half types, else fp32; [batches, rows, columns]
  void* y;
  const void* bias;  // or null
  const float *row_sums, *column_sums;
  const float *row_used, *column_used;  // ranges of the operands, [2] and [members, 2]
  OpticalMembers members;               // of columns
  int64_t batches, rows, columns, inner;
  int64_t slices;  // size of the output's dimension 0
  int levels;
  float lut_min, smooth, shared;
  bool draws, train, clipped;
  PhiloxKey key[kOpticalMembers];
  const int64_t* clock;  // or null
  unsigned* ticket;      // 0 before the launch; where `train`
  int moves;
  OpticalMove move[kOpticalMembers + 2];
};
// Floats that `seen` and `unset` need for this shape.
int64_t optical_output_parts(const OpticalOutputArgs& a, int multiprocessors);
// unset: what launch_optical_output_seen wrote, or null where all ranges are set. seen: scratch.
cudaError_t launch_optical_output(const OpticalOutputArgs& a, const float* unset, float* seen,
                                  Dtype dtype, int multiprocessors, cudaStream_t stream);
cudaError_t launch_optical_output_seen(const OpticalOutputArgs& a, float* unset, Dtype dtype,
                                       int multiprocessors, cudaStream_t stream);

}  // namespace refract
