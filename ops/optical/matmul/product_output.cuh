// What the kernels that finish a product of codes share: which part of the output's range a block
// has seen, and moving the ranges once all have.
#pragma once
#include "ops/optical/matmul/product_kernel.h"
#include "ops/optical/quantize/ranges.cuh"

namespace refract::optical {

// A member's columns in tiles of kTile.
template <int kTile>
__host__ __device__ __forceinline__ int64_t tiles_of(const OpticalMembers& m, int member) {
  return (m.begin[member + 1] - m.begin[member] + kTile - 1) / kTile;
}

__device__ __forceinline__ Mix mix_of(const OpticalOutputArgs& a, int member) {
  const Range row = load_range(a.row_used);
  const Range column = load_range(a.column_used + 2 * member);
  return mix(quantizer(row, a.levels, 0.0f), quantizer(column, a.levels, a.lut_min),
             static_cast<float>(a.inner));
}

// A member's parts of `seen` or `unset`.
struct Parts {
  int64_t first, count;
};

// Moves all ranges, a warp each, in the first kThreads threads of the last block: the others have
// read them. parts_of(member): the member's parts.
template <class F>
__device__ __forceinline__ void move_ranges(const OpticalOutputArgs& a, const float* unset,
                                            const float* seen, F parts_of) {
  for (int job = threadIdx.x / 32; job < a.members.count + a.moves; job += kWarps) {
    const bool output = job < a.members.count;
    const Parts parts = output ? parts_of(job) : Parts{0, kOpticalParts};
    const OpticalMove move = output ? OpticalMove{a.members.range[job], seen + 2 * parts.first}
                                    : a.move[job - a.members.count];
    Range from = load_range(move.range);
    if (output && a.clipped && !is_set(from) && unset != nullptr) {
      from = warp_merge_parts(unset + 2 * parts.first, parts.count);
    }
    const Range merged = warp_merge_parts(move.seen, parts.count);
    if (threadIdx.x % 32 == 0) store_range(move.range, moved(from, merged, a.smooth));
  }
}

}  // namespace refract::optical
