// What the kernels that finish a product of codes share: which part of the output's range a block
// has seen, and moving the ranges once all have.
#pragma once
#include "ops/optical/device.cuh"
#include "ops/optical/product_kernel.h"

namespace refract::optical {

// A member's columns in tiles of kTile.
template <int kTile>
__host__ __device__ __forceinline__ int64_t tiles_of(const OpticalMembers& m, int member) {
  return (m.begin[member + 1] - m.begin[member] + kTile - 1) / kTile;
}

// A member's parts of `seen` or `unset`, one for each of its tiles and of `row_blocks`, follow
// those of the members before it.
template <int kTile>
__device__ __forceinline__ int64_t first_part(const OpticalMembers& members, int member,
                                              int64_t row_blocks) {
  int64_t tiles = 0;
  for (int m = 0; m < member; ++m) tiles += tiles_of<kTile>(members, m);
  return tiles * row_blocks;
}

__device__ __forceinline__ Mix mix_of(const OpticalOutputArgs& a, int member) {
  const Range row = load_range(a.row_used);
  const Range column = load_range(a.column_used + 2 * member);
  return mix(quantizer(row, a.levels, 0.0f), quantizer(column, a.levels, a.lut_min),
             static_cast<float>(a.inner));
}

// Moves all ranges, a warp each, in the first kThreads threads of the last block: the others have
// read them.
template <int kTile>
__device__ __forceinline__ void move_ranges(const OpticalOutputArgs& a, const float* unset,
                                            const float* seen, int64_t row_blocks) {
  for (int job = threadIdx.x / 32; job < a.members.count + a.moves; job += kWarps) {
    const bool output = job < a.members.count;
    const int64_t first = output ? first_part<kTile>(a.members, job, row_blocks) : 0;
    const int64_t parts = output ? tiles_of<kTile>(a.members, job) * row_blocks : kOpticalParts;
    const OpticalMove move = output ? OpticalMove{a.members.range[job], seen + 2 * first}
                                    : a.move[job - a.members.count];
    Range from = load_range(move.range);
    if (output && a.clipped && !is_set(from) && unset != nullptr) {
      from = warp_merge_parts(unset + 2 * first, parts);
    }
    const Range merged = warp_merge_parts(move.seen, parts);
    if (threadIdx.x % 32 == 0) store_range(move.range, moved(from, merged, a.smooth));
  }
}

}  // namespace refract::optical
